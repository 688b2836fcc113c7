"""Which files a request may name: regular text files in folders that this machine's owner has opened to it."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

from agents.data_manager.table import unusable

PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".npz", ".dill")
_PLACE = "data.path"
_MAGIC = ((b"\x80", "a pickle"), (b"PK\x03\x04", "a zip archive"), (b"\x1f\x8b", "compressed"), (b"PAR1", "Parquet"))


def opened(path: str, roots: Sequence[Path]) -> BufferedReader:
    """The file, opened, once it is known to be allowed; raises `InvalidRequest` with the reason and the cure."""
    place = Path(path)
    if not place.is_absolute():
        raise unusable(
            _PLACE, f"{path!r} is not an absolute path", f"Write the whole path, such as /data/{place.name}."
        )
    if place.suffix.lower() in PICKLES:
        cure = "Save the table as CSV: loading a pickle runs whatever code is in it."
        raise unusable(_PLACE, f"{path!r} is a pickle or may hold one", cure)
    real = _resolved(place)
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(str(root) for root in roots)
        cure = f"Start with `--data-root {real.parent}`, or move the file; allowed now: {allowed}."
        raise unusable(_PLACE, f"{_shown(place, real)} is outside the folders that requests may read", cure)
    return _as_text(real)


def _resolved(place: Path) -> Path:
    try:
        return place.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its links form a ring"
        raise unusable(_PLACE, f"cannot read {str(place)!r}: {reason}", "Correct the path.") from None


def _shown(place: Path, real: Path) -> str:
    return repr(str(place)) if place == real else f"{str(place)!r} (a link to {str(real)!r})"


def _as_text(real: Path) -> BufferedReader:
    # A pipe would block for ever when opened, so what it is comes first; the link-free path cannot be swapped for one
    # outside by somebody who may not write in the allowed folders.
    try:
        if not stat.S_ISREG(real.stat().st_mode):
            raise unusable(_PLACE, f"{str(real)!r} is not a regular file", "Name a CSV file.")
        file = real.open("rb")
    except OSError as error:
        raise unusable(_PLACE, f"cannot read {str(real)!r}: {error.strerror}", "Make it readable.") from None
    start = file.peek(4096)[:4096]
    what = next((name for magic, name in _MAGIC if start.startswith(magic)), "binary" if b"\0" in start else "")
    if what:
        file.close()
        raise unusable(_PLACE, f"{str(real)!r} is {what}, not a text table", "Save the table as CSV in UTF-8.")
    return file
