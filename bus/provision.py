"""Streams and durables: made once by the admin identity, confirmed ever after, never silently changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bus.answers import api
from bus.link import Link
from contracts.errors import NewerThanCode, NotFound, Refused

LAYOUT = 1
"""Raised when the streams themselves change their meaning."""

_DAY = 86_400 * 10**9
_VERSION = "swarm-layout"


@dataclass(frozen=True, slots=True)
class Layout:
    """How much of what is kept, and how often; bytes are per stream."""

    partition: str = "00"
    replicas: int = 1
    facts_bytes: int = 8 * 2**30
    telemetry_bytes: int = 2**30
    dead_bytes: int = 64 * 2**20
    wake_again: float = 30.0
    """Seconds until a wake-up that was neither retired nor kept busy is delivered again."""


def streams(layout: Layout) -> tuple[dict[str, Any], ...]:
    """The configuration of every stream."""
    part, shared = layout.partition, {"storage": "file", "num_replicas": layout.replicas, "allow_direct": True}
    facts = {
        "name": f"EV_{part}",
        "subjects": [f"swarm.ev.{part}.>"],
        "max_bytes": layout.facts_bytes,
        "discard": "new",
        "deny_delete": True,
        "deny_purge": True,
        "allow_atomic": True,
    }
    telemetry = {
        "name": f"TM_{part}",
        "subjects": [f"swarm.tm.{part}.>"],
        "max_bytes": layout.telemetry_bytes,
        "max_age": 7 * _DAY,
        "discard": "old",
    }
    if layout.replicas == 1:
        telemetry["persist_mode"] = "async"  # exempt from the sync of every write; replicated streams cannot be
    dead = {
        "name": "DLQ",
        "subjects": ["swarm.dlq.>"],
        "max_bytes": layout.dead_bytes,
        "max_age": 90 * _DAY,
        "discard": "old",
        "allow_atomic": True,
    }
    metadata = {"metadata": {_VERSION: str(LAYOUT)}, "retention": "limits"}
    return tuple(shared | metadata | each for each in (facts, telemetry, dead))


class StreamAdmin:
    """`Admin` over the connection of the admin identity."""

    def __init__(self, link: Link, layout: Layout) -> None:
        self._link = link
        self._layout = layout

    async def provision(self) -> None:
        """See `Admin.provision`. Raises `Refused` or `NewerThanCode` when a stream is there and is another."""
        for wanted in streams(self._layout):
            try:
                found = await api(self._link, f"STREAM.INFO.{wanted['name']}", patience=2.0)
            except NotFound:
                await api(self._link, f"STREAM.CREATE.{wanted['name']}", wanted, patience=15.0)
            else:
                await self._adopt(found["config"], wanted)

    async def _adopt(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """A budget may grow, which touches nothing that is stored; one larger than wanted stays as it is."""
        budget = {"max_bytes": max(found["max_bytes"], wanted["max_bytes"])}
        _confirm({**found, **budget}, {**wanted, **budget})
        if found["max_bytes"] < wanted["max_bytes"]:
            await api(self._link, f"STREAM.UPDATE.{wanted['name']}", {**found, **wanted}, patience=15.0)

    async def stored_bytes(self) -> int:
        """How much of its budget the stream of facts holds."""
        found = await api(self._link, f"STREAM.INFO.EV_{self._layout.partition}")
        return int(found["state"]["bytes"])

    async def consumer(self, role: str, subjects: Sequence[str]) -> None:
        """See `Admin.consumer`."""
        stream = f"EV_{self._layout.partition}"
        config: dict[str, Any] = {
            "durable_name": role,
            "filter_subjects": sorted(subjects),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(self._layout.wake_again * 1e9),
            "max_deliver": -1,
            "max_ack_pending": 1000,
            "replay_policy": "instant",
        }
        asked = {"stream_name": stream, "config": config}
        await api(self._link, f"CONSUMER.CREATE.{stream}.{role}", asked, patience=15.0)


def _confirm(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    version = int(found.get("metadata", {}).get(_VERSION, LAYOUT))
    if version > LAYOUT:
        raise NewerThanCode(
            f"The stream {wanted['name']} has layout {version}, this software knows {LAYOUT}.", cure="Update stigmergy."
        )
    for name, value in wanted.items():
        if name != "metadata" and found.get(name, False) != value:
            raise Refused(
                f"The stream {wanted['name']} has {name} {found.get(name)!r} where {value!r} is wanted.",
                cure="Use another server or account, or change the stream by hand if you know it is safe.",
            )
