"""Streams and durable consumers: made once by the admin identity, confirmed ever after, never silently changed.

A role's wake-ups come from its durable one at a time, and one is retired when the server has heard so.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import orjson

from bus.frames import WireMessage, delivery, publication
from bus.link import Link, Mailbox, api, opened_inbox
from bus.port import StoredRecord, Wake
from bus.rights import api as prefix
from contracts.errors import NewerThanCode, NotFound, Refused, Unreachable

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
                config = (await api(self._link, f"STREAM.INFO.{wanted['name']}", patience=2.0))["config"]
            except NotFound:
                await api(self._link, f"STREAM.CREATE.{wanted['name']}", wanted, patience=15.0)
                continue
            # A budget may grow, which touches nothing that is stored; one larger than wanted stays as it is.
            budget = {"max_bytes": max(config["max_bytes"], wanted["max_bytes"])}
            _confirm({**config, **budget}, {**wanted, **budget})
            if config["max_bytes"] < wanted["max_bytes"]:
                await api(self._link, f"STREAM.UPDATE.{wanted['name']}", {**config, **wanted}, patience=15.0)

    async def stored_bytes(self) -> int:
        """How much of its budget the stream of facts holds."""
        info = await api(self._link, f"STREAM.INFO.EV_{self._layout.partition}")
        return int(info["state"]["bytes"])

    async def consumer(self, role: str, subjects: Sequence[str]) -> None:
        """See `Admin.consumer`."""
        stream = f"EV_{self._layout.partition}"
        config: dict[str, object] = {
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


_EXPIRES = 20.0
_HEARTBEAT = 5.0
_MISSED = 2.5
_CONTROL, _NOBODY = 100, 503
_ENDED = (404, 408, 409)
"""A request that ended without a message: nothing there, expired, or the consumer moved or went."""
_DELETED = b"consumer deleted"
_PATIENCE = 0.2


class DurableWakes:
    """`Wakes` over one connection. Each instance asks for one wake-up when it is ready for one, so that none waits
    behind another in an instance that is busy."""

    def __init__(self, link: Link, *, stream: str) -> None:
        self._link = link
        self._stream = stream

    def wakes(self, role: str) -> AbstractAsyncContextManager[AsyncIterator[Wake]]:
        """See `Wakes.wakes`."""
        return contextlib.aclosing(self._each(role))

    async def _each(self, role: str) -> AsyncGenerator[Wake]:
        while True:
            await self._link.connected(None)
            async with opened_inbox(self._link) as (inbox, mailbox):
                while not mailbox.lost:
                    frame = await self._next(role, inbox, mailbox)
                    if frame is not None:
                        yield self._wake(frame)

    async def _next(self, role: str, inbox: str, mailbox: Mailbox) -> WireMessage | None:
        """Ask for one message and wait for it, or for the end of the request."""
        asked = {"batch": 1, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        subject = f"{prefix(self._link.identity)}.CONSUMER.MSG.NEXT.{self._stream}.{role}"
        with contextlib.suppress(Unreachable):
            await self._link.send(publication(subject, inbox, b"", orjson.dumps(asked)))
        while taken := await mailbox.take(_HEARTBEAT * _MISSED):
            for frame in taken:
                if frame.status == 0:
                    return frame
                if frame.status == _NOBODY or (frame.status in _ENDED and _DELETED in frame.head.lower()):
                    await asyncio.sleep(_PATIENCE)  # no such durable now: it may be on its way
                    return None
                if frame.status in _ENDED:
                    return None
        return None

    def _wake(self, frame: WireMessage) -> Wake:
        stored = StoredRecord(delivery(frame.reply)[0], frame.subject, frame.body, frame.stored_headers)

        async def done() -> None:
            await self._link.connected()
            await self._link.ask(frame.reply, b"+ACK")

        async def busy() -> None:
            await self._link.send(publication(frame.reply, "", b"", b"+WPI"))

        async def again(delay: float) -> None:
            asked = b"-NAK " + orjson.dumps({"delay": int(delay * 1e9)})
            await self._link.send(publication(frame.reply, "", b"", asked))

        return Wake(stored, done, busy, again)
