"""What an audit has found so far, kept beside the home's work, so that an interrupted one goes on where it was.

A result is kept under a digest of everything that it depends on, so a changed input never finds an old result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from blake3 import blake3

from bus.disk import make_directory, write_file


class AuditResults:
    """Results by what was checked; a file that is not whole counts as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = _read(path)

    def get(self, key: str) -> dict[str, Any] | None:
        """What was found, if it was this that was looked at."""
        found = self._found.get(key)
        return found if isinstance(found, dict) else None

    def put(self, key: str, found: Mapping[str, Any]) -> None:
        """Keep a result before anything else is done."""
        self._found[key] = dict(found)
        make_directory(self._path.parent)
        write_file(self._path, orjson.dumps(self._found))

    def close(self) -> None:
        """The audit has come to its end; the next one computes everything itself."""
        self._path.unlink(missing_ok=True)


def key_of(what: Mapping[str, Any]) -> str:
    """The digest of all that a result depends on."""
    return str(blake3(orjson.dumps(what, option=orjson.OPT_SORT_KEYS)).hexdigest())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
