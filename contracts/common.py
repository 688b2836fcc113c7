"""What any role may say about its own work."""

import signal as signals
from typing import Literal

from contracts.event import Event
from contracts.roles import ANYBODY


class HandlerFailed(Event, lane=ANYBODY, wire="handler.failed"):
    """A handler raised on every attempt; the cause is answered by this failure until somebody redrives it."""

    role: str
    handler: str
    heard: str
    error: str
    attempts: int
    cure: str = ""


class ChildEnded(Event, lane=ANYBODY, wire="child.ended"):
    """A job's process ended without its answer: how, and how much memory it had taken."""

    purpose: Literal["train", "evaluate", "prepare", "export", "probe", "audit"]
    code: int | None
    signal: int | None
    max_rss_bytes: int
    message: str


def signal_name(number: int) -> str:
    """What people call the signal that ended a process."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
