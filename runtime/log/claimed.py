"""What a session's file says before anything in it is verified, so that children can be prepared meanwhile."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from bus import files, subjects
from contracts.errors import SwarmError
from contracts.trainer import TrainingClaimed
from runtime.jobs.profiles import claimed_threads

_CLAIM = subjects.fact("00-session", "trainer", TrainingClaimed.wire).rpartition("00-session")[2]


def likely_machine(log: Path) -> dict[str, Any]:
    """The threads and the device that the session was likely trained with; nothing where that makes no sense."""
    with suppress(SwarmError, ValueError, KeyError, TypeError, AttributeError):
        for stored in files.read(log):
            if stored.subject.endswith(_CLAIM):
                resolved = orjson.loads(stored.body)["data"]["resolved"]
                return {"threads": claimed_threads(resolved["threads"]), "device": str(resolved["device"])}
    return {}
