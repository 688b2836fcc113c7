"""A running swarm in the hands of a program: started if needed, asked, followed. All of it is asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from contracts.errors import Failed, InvalidInput, NotFound, SwarmError, error_of
from runtime.commands.client import SwarmClient

if TYPE_CHECKING:
    from contracts.replies import QueueReply
    from runtime.home.settings import Settings

PATIENCE = 60.0
"""Seconds that the swarm may take to read a long session before it answers."""

KINDS: dict[str, type[SwarmError]] = {"unsupported": InvalidInput, "no-checkpoint": NotFound, "no-dataset": NotFound}
"""What the exporter's own codes mean to a caller; its other codes are those of `contracts.errors`."""

Json = dict[str, Any]


class Swarm(SwarmClient):
    """A connection to a swarm: `async with stigmergy.Swarm.start() as swarm` starts one when none is up.

    A session is named by its id, a unique beginning of it, its `request_id`, `last` or `last-KIND`.
    """

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        settings: Settings | None = None,
        *,
        home: str | Path | None = None,
        url: str | None = None,
        creds: str | Path | None = None,
    ) -> AsyncIterator[Self]:
        """The swarm that runs in a home, or at `url` with the credentials file `creds`; `Unreachable` when none does.

        Without any of them it is the one that the command line would ask here.
        """
        if settings is None:
            from runtime.home import settings as known

            given = {"home": home, "url": url, "creds": creds}
            settings = known.load(**{name: str(value) for name, value in given.items() if value is not None})
        async with super().connect(settings) as swarm:
            yield swarm

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, *, home: str | Path | None = None) -> AsyncIterator[Self]:
        """As `connect`, and a swarm is started when none is up. It stays up afterwards; `swarm down` ends it."""
        from runtime.api import hosting
        from runtime.api.home_context import HomeContext

        context = HomeContext(home=str(home) if home is not None else None)
        await asyncio.to_thread(hosting.bring_up, context)
        async with cls.connect(context.settings) as swarm:
            yield swarm

    async def submit(
        self,
        request: Mapping[str, Any] | str | Path,
        *,
        request_id: str | None = None,
        kind: str = "training",
        folder: Path | None = None,
    ) -> str:
        """Request a session; returns its id once the request is a fact. A path names a file with the request.

        When the owner of the home asks, `folder` (that of the file, unless given) becomes readable for the session; for
        other clients it is ignored.
        """
        if isinstance(request, str | Path):
            from runtime.api import request_file

            read = request_file.read_search if kind == "search" else request_file.read
            folder, request = folder or request_file.folder(str(request)), read(str(request))
        return await super().submit(request, request_id=request_id, kind=kind, folder=folder)

    async def fork(
        self,
        session: str,
        at: int,
        *,
        changes: Mapping[str, Any] | None = None,
        without: Sequence[str] | Mapping[str, str] = (),
        segment: int | None = None,
        request_id: str | None = None,
    ) -> Json:
        """Request a session that begins in the bits that another had at a step; the answer names it as `session`.

        `changes` are values of its request by dotted path; `without` names training rows to leave out.
        """
        rows = dict(without) if isinstance(without, Mapping) else list(without)
        wish: Json = {"step": at, "set": dict(changes or {}), "without": rows}
        wish |= {"segment": segment, "request_id": request_id}
        return await self.command("fork", timeout=PATIENCE, session=session, **wish)

    async def prove(self, session: str, intervention: int | str | None = None, *, seeds: int = 1) -> str:
        """Request a proof of what an intervention (its number or its event; the last one) was worth; returns its id."""
        wish: Json = {"session": session, "intervention": intervention, "seeds": seeds}
        answer = await self.command("prove", timeout=PATIENCE, **wish)
        return str(answer["session"])

    async def export(
        self, session: str, format: str = "onnx", *, quantize: str | None = None, checkpoint: str | int = "best"
    ) -> tuple[str, Json]:
        """Have the model of a session written as a file: the session in which that stands, and what was recorded.

        Raises the error with which the exporter refused.
        """
        wish: Json = {"format": format, "quantize": quantize or "", "checkpoint": str(checkpoint)}
        source = await self.session(session)
        answer = await self.command("export", session=source["session"], **wish)
        own = str(answer["session"])
        async for line in self.events(own, after=source["events"] if own == source["session"] else 0, follow=True):
            name, data = line["name"], line["data"]
            if not line["understood"]:
                continue
            if name in ("model.exported", "export.refused"):
                if (data["format"], data["quantize"]) != (wish["format"], wish["quantize"]):
                    continue
                if name == "model.exported":
                    return own, dict(data)
                kind = KINDS.get(data["code"]) or type(error_of(data))
                raise kind(f"export as {data['format']} refused: {data['message']}", cure=data["cure"])
            if name == "handler.failed" and data["role"] == "exporter":
                raise Failed(f"the exporter failed: {data['error']}", cure=data["cure"])
        raise Failed(f"session {own} ended without an export.", cure=f"See: swarm events {own}")

    async def audit(self, session: str, *, mode: str = "log", segments: int = 5, seed: int | None = None) -> Json:
        """Have a session audited by all trainers, as a session of its own; the answer names it and the seed."""
        wish: Json = {"mode": mode, "segments": segments} | ({} if seed is None else {"seed": seed})
        return await self.command("audit", session=(await self.session(session))["session"], **wish)

    async def verdict(self, audit: str) -> Json | None:
        """What an audit in the swarm found; None before it has come to a verdict."""
        async for line in self.events(audit):
            if line["name"] == "audit.completed" and line["understood"]:
                found: Json = line["data"]["found"]
                return found
        return None

    async def cancel(self, session: str, reason: str = "") -> None:
        """Ask a session to end now; what it has recorded stays."""
        await self.command("cancel", session=session, reason=reason)

    async def pause(self, session: str) -> None:
        """Ask a session to wait at its next grid step, with its state kept."""
        await self.command("pause", session=session)

    async def resume(self, session: str) -> None:
        """Let a paused session go on."""
        await self.command("resume", session=session)

    async def queue(self) -> QueueReply:
        """Which sessions have one of how many slots, and which wait for one: their places, and why."""
        told: QueueReply | None = (await self.command("status")).get("queue")
        return told or {"limit": 0, "slots": [], "length": 0, "waiting": []}

    async def approve(self, session: str, proposal: int | str) -> str | None:
        """Let a proposal (its number from 1, or its event) take effect; the session that it begins, if it does."""
        found = await self._proposal(session, proposal)
        begun: str | None = (await self.command("approve", timeout=PATIENCE, **found)).get("begun")
        return begun

    async def reject(self, session: str, proposal: int | str, reason: str = "") -> None:
        """Let a proposal come to nothing."""
        await self.command("reject", **await self._proposal(session, proposal), reason=reason)

    async def _proposal(self, session: str, proposal: int | str) -> Json:
        """Session and proposal by their ids, which is how what is signed names them."""
        known = await self.session(session)
        numbers = {str(waiting["number"]): waiting["id"] for waiting in known["proposals"]}
        return {"session": known["session"], "proposal": numbers.get(str(proposal), str(proposal))}
