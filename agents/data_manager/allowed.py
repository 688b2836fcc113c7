"""Which files and folders a request may name: what lies in folders that this machine's owner has opened to it."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

from agents.data_manager.table import unusable

PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".npz", ".dill")
_PLACE = "data.path"
_MAGIC = (
    (b"\x80", "a pickle"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "compressed"),
    (b"PAR1", "Parquet"),
    (b"\x89HDF", "HDF5"),
)
_SOURCES = {".npz": "npz", ".parquet": "parquet", ".h5": "hdf5", ".hdf5": "hdf5", ".jsonl": "jsonl", ".json": "json"}


def opened(path: str, roots: Sequence[Path]) -> BufferedReader:
    """A text file, opened, once it is known to be allowed; raises `InvalidRequest` with the reason and the cure."""
    file = opened_binary(path, roots)
    start = file.peek(4096)[:4096]
    what = next((name for magic, name in _MAGIC if start.startswith(magic)), "binary" if b"\0" in start else "")
    if what:
        file.close()
        cure = _other_source(path) or "Save the table as CSV in UTF-8."
        raise unusable(_PLACE, f"{file.name!r} is {what}, not a text table", cure)
    return file


def opened_binary(path: str, roots: Sequence[Path], *, suffix: str = "") -> BufferedReader:
    """Any file that is allowed, opened; `suffix` is one that pickles have and this format shares."""
    real = allowed(path, roots, suffix=suffix)
    # A pipe would block for ever when opened, so what it is comes first; the link-free path cannot be swapped for one
    # outside by somebody who may not write in the allowed folders.
    try:
        if not stat.S_ISREG(real.stat().st_mode):
            raise unusable(_PLACE, f"{str(real)!r} is not a regular file", "Name a file.")
        return real.open("rb")
    except OSError as error:
        raise unusable(_PLACE, f"cannot read {str(real)!r}: {error.strerror}", "Make it readable.") from None


def folder(path: str, roots: Sequence[Path]) -> Path:
    """A folder that is allowed."""
    real = allowed(path, roots)
    if not real.is_dir():
        raise unusable(_PLACE, f"{str(real)!r} is not a folder", "Name the one with a folder per category.")
    return real


def allowed(path: str, roots: Sequence[Path], *, suffix: str = "") -> Path:
    """The place of a path without links; raises `InvalidRequest` when requests may not read it."""
    place = Path(path)
    if not place.is_absolute():
        raise unusable(
            _PLACE, f"{path!r} is not an absolute path", f"Write the whole path, such as /data/{place.name}."
        )
    if place.suffix.lower() in PICKLES and place.suffix.lower() != suffix:
        cure = _other_source(path) or "Save the table as CSV or Parquet, arrays with `numpy.savez`."
        reason = "loading a pickle runs whatever code is in it"
        raise unusable(_PLACE, f"{path!r} is a pickle or may hold one, and {reason}", cure)
    real = _resolved(place)
    if not within(real, roots):
        names = ", ".join(str(root) for root in roots)
        cure = f"Start with `--data-root {real.parent}`, or move the file; allowed now: {names}."
        raise unusable(_PLACE, f"{_shown(place, real)} is outside the folders that requests may read", cure)
    return real


def within(real: Path, roots: Sequence[Path]) -> bool:
    """Whether a link-free path lies in one of the folders."""
    return any(real.is_relative_to(root.resolve()) for root in roots)


def _other_source(path: str) -> str:
    source = _SOURCES.get(Path(path).suffix.lower())
    return f"Write `source: {source}`." if source else ""


def _resolved(place: Path) -> Path:
    try:
        return place.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its links form a ring"
        raise unusable(_PLACE, f"cannot read {str(place)!r}: {reason}", "Correct the path.") from None


def _shown(place: Path, real: Path) -> str:
    return repr(str(place)) if place == real else f"{str(place)!r} (a link to {str(real)!r})"
