"""What `swarm doctor --repair` does: it sets aside copies of the log that are damaged. The store is never written to.

The next start reads the log from its beginning and writes every file that is missing or lacks something.
"""

from __future__ import annotations

from pathlib import Path

from bus import files
from contracts.errors import NotVerified
from runtime.home.home import Home


def repair(home: Home) -> list[Path]:
    """Set aside what is damaged and say where it is now; `Refused` while a host holds the home."""
    home.lock()
    try:
        moved = [_set_aside(path) for path in map(home.log, home.session_ids()) if _is_damaged(path)]
        home.forget_tail()
    finally:
        home.unlock()
    return moved


def _is_damaged(path: Path) -> bool:
    """Whether records cannot be told from each other; what a record says is for audits to judge."""
    try:
        for _ in files.read(path):
            pass
    except NotVerified:
        return True
    return False


def _set_aside(path: Path) -> Path:
    taken = len(list(path.parent.glob(f"{path.name}.damaged-*")))
    return path.rename(path.with_name(f"{path.name}.damaged-{taken + 1}"))
