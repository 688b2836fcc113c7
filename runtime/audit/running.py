"""Verdicts on the log of a session that a host may be writing to at this moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from runtime.replay.verdict import Verdict

T = TypeVar("T")

_TRIES, _PAUSE = 5, 0.1


def steadily(look: Callable[[], tuple[Verdict, T]]) -> tuple[Verdict, T]:
    """What a look gives, taken again while the file ends in half a record, which a host leaves there for a moment."""
    for _ in range(_TRIES - 1):
        found = look()
        if not any(one.what == "torn" for one in found[0].divergences):
            return found
        time.sleep(_PAUSE)
    return look()
