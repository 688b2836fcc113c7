"""Which files a request may name: what lies in folders that this machine's owner has opened to it, and is no pickle.

Nothing in a home is ever data, whatever folders are open: it holds the keys of everybody, and what is read as data can
be told from what is published of it.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from contracts.errors import InvalidRequest, Problem
from runtime.home.home import Home
from runtime.home.settings import Settings

PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".npz", ".dill")


def roots(home: Home, settings: Settings, session: str = "") -> list[Path]:
    """The folders out of which a session's request may name files.

    They are those of the settings, and the one that the owner has opened to this session by running a request in it.
    """
    return [*(Path(root).absolute() for root in settings.data_roots), *home.opened_to(session)]


def within(real: Path, roots: Sequence[Path]) -> bool:
    """Whether a link-free path lies in one of the folders."""
    return any(real.is_relative_to(root.resolve()) for root in roots)


def is_closed(folder: Path) -> bool:
    """Whether a folder is a home, or a store of blobs."""
    if (folder / "layout").is_file() and (folder / "keys").is_dir():
        return True
    return (folder / "store").is_file() and (folder / "datasets").is_dir()


@dataclass(frozen=True)
class RequestPath:
    """A path as a request names it, at a place in the request; `instead` is what to do about a pickle."""

    path: str
    where: str
    instead: str

    def opened(self, roots: Sequence[Path], *, suffix: str = "") -> BufferedReader:
        """The file, once it is known to be allowed; `suffix` is one that pickles have and this format shares."""
        real = self.allowed(roots, suffix=suffix)
        # A pipe would block for ever when opened, so what it is comes first; the link-free path cannot be swapped for
        # one outside by a user who may not write in the allowed folders.
        try:
            if not stat.S_ISREG(real.stat().st_mode):
                raise self._unusable(f"{str(real)!r} is not a regular file", "Name a file.")
            return real.open("rb")
        except OSError as error:
            raise self._unusable(f"cannot read {str(real)!r}: {error.strerror}", "Make it readable.") from None

    def folder(self, roots: Sequence[Path]) -> Path:
        """The folder, once it is known to be allowed."""
        real = self.allowed(roots)
        if not real.is_dir():
            raise self._unusable(f"{str(real)!r} is not a folder", "Name the one with a folder per category.")
        return real

    def allowed(self, roots: Sequence[Path], *, suffix: str = "") -> Path:
        """The place without links; raises `InvalidRequest` when requests may not read it."""
        place = Path(self.path)
        if not place.is_absolute():
            cure = f"Write the whole path, such as /data/{place.name}."
            raise self._unusable(f"{self.path!r} is not an absolute path", cure)
        if place.suffix.lower() in PICKLES and place.suffix.lower() != suffix:
            reason = "loading a pickle runs whatever code is in it"
            raise self._unusable(f"{self.path!r} is a pickle or may hold one, and {reason}", self.instead)
        real = self._resolved(place)
        # Without `..` and with its links still in it: what leads out of a home lies in it all the same.
        places = {Path(os.path.normpath(place)), real}
        if any(is_closed(folder) for here in places for folder in (here, *here.parents)):
            raise self._unusable(f"{self.path!r} lies in the home of a swarm", "Copy it into a folder of its own.")
        if not within(real, roots):
            names = ", ".join(str(root) for root in roots) or "none"
            cure = f"Start with `--data-root {real.parent}`, or run a request that lies there; open now: {names}."
            raise self._unusable(f"{_shown(place, real)} is outside the folders that requests may read", cure)
        return real

    def _resolved(self, place: Path) -> Path:
        try:
            return place.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            ring = "its links form a ring"
            reason = (
                error.strerror if isinstance(error, OSError) else ring if isinstance(error, RuntimeError) else error
            )
            raise self._unusable(f"cannot read {str(place)!r}: {reason}", "Correct the path.") from None

    def _unusable(self, message: str, cure: str) -> InvalidRequest:
        return InvalidRequest([Problem(self.where, message, cure)])


def _shown(place: Path, real: Path) -> str:
    return repr(str(place)) if place == real else f"{str(place)!r} (a link to {str(real)!r})"
