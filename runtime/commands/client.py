"""A program's way into a running swarm: commands by request and reply; a person's are signed. It reads no log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import orjson

from bus import nkeys, subjects
from bus.jetstream import connect
from bus.keys import Signer, read_private, signer_of
from bus.port import Wire
from bus.rights import seed_file
from bus.signed_commands import ask_signed
from contracts.errors import InvalidInput, NotFound, Refused, TimedOut, Unreachable, error_of
from contracts.replies import EventReply, SessionReply
from contracts.roles import Right
from contracts.session import ENDED
from contracts.signed_command import CLIENT, OWNER, PERSON, RIGHTS, UNSIGNED, refuse_without
from runtime.home.home import Home
from runtime.home.settings import Settings, load

_PATIENCE = 60.0
"""Seconds without a bus that waiting and following ride out."""

_POLL, _LONG = 20.0, 60.0

_ABOUT_A_SESSION = ("cancel", "pause", "resume", "export")
"""Commands that may leave what was signed in the log of the session that they name."""


class SwarmClient:
    """A connection to the front desk of a swarm."""

    def __init__(self, wire: Wire, *, owner: bool = False, person: PersonKey | None = None) -> None:
        self._wire = wire
        self._subject = subjects.owner_command if owner else subjects.command
        self._owner = owner
        self._person = person

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, settings: Settings | None = None, *, home: str | Path | None = None) -> AsyncIterator[Self]:
        """The swarm of a home, or the one that `url` and `creds` name; who may read the home's seeds is its owner.

        Without settings they are those of `home`, or of the home that the command line would use here. Credentials of a
        person (`swarm person new`) sign every command.
        """
        found = _credentials(settings or load(home=str(home) if home is not None else None))
        async with connect(found.url, found.identity, found.user, patience=5.0) as bus:
            yield cls(bus, owner=found.identity == OWNER, person=found.person)

    async def command(self, verb: str, /, timeout: float = 10.0, **body: Any) -> dict[str, Any]:
        """Ask the desk; raises the error that its reply names."""
        reply = orjson.loads(await self._ask(verb, body, timeout))
        if "error" in reply:
            raise error_of(reply["error"])
        answer: dict[str, Any] = reply
        return answer

    async def _ask(self, verb: str, body: dict[str, Any], timeout: float) -> bytes:
        try:
            if self._person is None:
                return await self._wire.ask(self._subject(verb), orjson.dumps(body), timeout=timeout)
            if verb in _ABOUT_A_SESSION:
                # What is signed names the session by its id: the log that keeps it knows no other name.
                body |= {"session": (await self.session(str(body.get("session") or "")))["session"]}
            signer, root, _ = self._person
            return await ask_signed(self._wire, signer, root, verb, body, timeout=timeout)
        except Refused:
            # The server forbids what nobody here has a right to; the model of the command says which right that is.
            from contracts.commands import BODIES

            name = OWNER if self._owner else CLIENT
            who, rights = (self._person.signer.role, self._person.rights) if self._person else (name, UNSIGNED[name])
            if verb in BODIES:
                refuse_without(BODIES[verb].right, verb, who, rights)
            raise

    async def submit(
        self,
        request: Mapping[str, Any],
        *,
        request_id: str | None = None,
        kind: str = "training",
        folder: Path | None = None,
    ) -> str:
        """Request a session; returns its id once the request is a fact.

        When the owner of the home asks, `folder` becomes readable for the session; for other clients it is ignored.
        """
        verb = {"training": "train", "search": "search"}[kind]
        body = dict(request) | ({"request_id": request_id} if request_id else {})
        body |= {"folder": str(folder)} if folder and self._owner else {}
        answer = await self.command(verb, **body)
        return str(answer["session"])

    async def session(self, session: str) -> SessionReply:
        """The summary of a session as of now."""
        return cast("SessionReply", await self.command("session", session=session))

    async def sessions(self) -> list[SessionReply]:
        """Every session, oldest first."""
        found: list[SessionReply] = []
        after, ended = "", False
        while not ended:
            page = await self.command("sessions", timeout=_LONG, after=after)
            found += page["sessions"]
            after, ended = page["next"], page["ended"]
        return found

    async def events(self, session: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[EventReply]:
        """Events in order, each once; with `follow` until the session has ended."""
        wait = _POLL if follow else 0.0
        while True:
            page = await self._patiently("events", session=session, after=after, wait=wait)
            for line in page["events"]:
                yield line
            after = page["next"]
            if page["ended"] or not (follow or page["events"]):
                return

    async def wait(self, session: str, timeout: float | None = None) -> SessionReply:
        """Wait until the session has ended and return its summary; `TimedOut` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _POLL if deadline is None else min(_POLL, max(0.0, deadline - time.monotonic()))
            found = cast("SessionReply", await self._patiently("session", session=session, wait=left))
            if found["state"] in ENDED:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                message = f"{session} is {found['state']} at step {found['step']} after {timeout} s."
                raise TimedOut(message, cure=f"It goes on; look again: swarm wait {session}")

    async def _patiently(self, verb: str, **body: Any) -> dict[str, Any]:
        """A command that is repeated while the bus is away, up to a minute."""
        since: float | None = None
        while True:
            try:
                return await self.command(verb, timeout=_POLL + 10.0, **body)
            except Unreachable:
                since = since or time.monotonic()
                if time.monotonic() - since > _PATIENCE:
                    raise
                await asyncio.sleep(0.5)


class PersonKey(NamedTuple):
    """What a person signs with, the root of the deployment for which the signatures are, and the person's rights."""

    signer: Signer
    root: str
    rights: tuple[Right, ...] = ()


class Credentials(NamedTuple):
    """Where the swarm is, as who it is asked, and the keys of that identity."""

    url: str
    identity: str
    user: nkeys.UserKey
    person: PersonKey | None = None


def _credentials(settings: Settings) -> Credentials:
    path = Path(settings.creds) if settings.creds else Home(settings.home).creds
    if settings.url and not path.exists():
        raise InvalidInput("--url needs --creds.", cure="Give the file that `swarm status --json` names as creds.")
    host = None if settings.url or settings.creds else Home(settings.home).host()
    if not (settings.url or settings.creds) and (host is None or not host.alive):
        raise Unreachable(f"no swarm runs in {str(settings.home)!r}.", cure="Start it: swarm up -d")
    try:
        creds = orjson.loads(path.read_bytes())
        url, seed = settings.url or creds["url"], seed_file(Home(settings.home).seeds, OWNER)
        if not settings.creds and os.access(seed, os.R_OK):
            return Credentials(url, OWNER, nkeys.read(seed))
        if "person" not in creds:
            return Credentials(url, CLIENT, nkeys.from_seed(creds["seed"]))
        creds = orjson.loads(read_private(path))
        name = PERSON + creds["person"]
        rights = tuple(right for right in RIGHTS if right in creds["rights"])
        person = PersonKey(signer_of(name, creds["key"].encode(), path), str(creds["root"]), rights)
        return Credentials(url, name, nkeys.from_seed(creds["seed"]), person)
    except FileNotFoundError:
        raise NotFound(f"there is no credentials file {str(path)!r}.", cure="Start the swarm: swarm up -d") from None
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        cure = "Use the one that `swarm status` or `swarm person new` names."
        raise InvalidInput(f"{str(path)!r} is no credentials file.", cure=cure) from None
