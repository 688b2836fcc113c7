"""Gives back what long histories hold, piece by piece.

Whatever holds a hundred thousand objects gives all of them back in one step when nobody uses it any more, and while a
step takes, no other thread of the process gets on. So somebody else holds them besides, and lets some go at a time.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from runtime.log.history import SessionLog

_PIECE = 1000


def release(*held: list[Any]) -> None:
    """Empty these lists; no other code may use them any more."""
    for one in held:
        while one:
            del one[-_PIECE:]


class Remains:
    """All that a history held when this was made, to be given back once the history is no longer used."""

    def __init__(self, history: SessionLog) -> None:
        self._history = ref(history)
        self._parts = history.parts()

    def release(self) -> bool:
        """Give back the objects and return True, unless the history is still used."""
        if self._history() is not None:
            return False
        release(self._parts)
        return True
