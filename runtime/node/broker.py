"""The NATS server of a host: its own, which it starts, watches and restarts, or one that others run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from bus.jetstream import connect
from bus.nkeys import UserKey
from bus.rights import PersonUser, Users
from bus.server import EmbeddedServer, end_orphan, recorded_server
from bus.subjects import GUEST
from contracts.errors import Refused, SwarmError
from contracts.roles import Right
from contracts.signed_command import PERSON
from runtime.home.home import Home
from runtime.home.settings import Settings

log = structlog.get_logger()

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_LOOK = 0.1
_LOOK_FOR_FROST = 20
"""Every how many looks the server is asked whether it still takes records."""


class Broker(Protocol):
    """Where the bus is, and what may be done about it from here."""

    @property
    def url(self) -> str:
        """The address at which clients reach the server."""
        ...

    @property
    def pid(self) -> int | None:
        """The server's process, when it is ours."""
        ...

    async def let_in(self, name: str, user: UserKey) -> None:
        """Add a guest's user to the server; `Refused` where others run the server and have not added it."""
        ...

    async def let_out(self, name: str) -> None:
        """Remove a guest's user from the server; its connections end."""
        ...

    async def let_person_in(self, name: str, user: UserKey, rights: tuple[Right, ...]) -> None:
        """Add a person's user to the server, in place of an older one; raises as `let_in` does."""
        ...

    async def let_person_out(self, name: str) -> None:
        """Remove a person's user from the server; its connections end."""
        ...

    async def keep(self) -> None:
        """Look after the server until cancelled: restart it when it has ended."""
        ...


class OwnServer:
    """The server that a host starts in its own home and restarts when it ends."""

    def __init__(self, home: Home, server: EmbeddedServer, room: int) -> None:
        self._home = home
        self._server = server
        self._room = room

    @property
    def url(self) -> str:
        """See `Broker.url`."""
        return self._server.url

    @property
    def pid(self) -> int | None:
        """See `Broker.pid`."""
        return self._server.pid

    async def let_in(self, name: str, user: UserKey) -> None:
        """See `Broker.let_in`; connections that are there stay."""
        if self._server.users.guests.get(name) != user.public:
            await self._server.admit(self._server.users.with_guest(name, user.public))

    async def let_out(self, name: str) -> None:
        """See `Broker.let_out`."""
        if name in self._server.users.guests:
            await self._server.admit(self._server.users.without_guest(name))

    async def let_person_in(self, name: str, user: UserKey, rights: tuple[Right, ...]) -> None:
        """See `Broker.let_person_in`."""
        await self._server.admit(self._server.users.with_person(name, PersonUser(user.public, rights)))

    async def let_person_out(self, name: str) -> None:
        """See `Broker.let_person_out`."""
        if name in self._server.users.people:
            await self._server.admit(self._server.users.without_person(name))

    async def keep(self) -> None:
        """Start the server again when it died, and when it froze on a full disk that has room again."""
        looks = 0
        while True:
            await asyncio.sleep(_LOOK)
            looks += 1
            if self._server.exit_code is not None:
                log.error("the server died", code=self._server.exit_code)
                await self._again()
            # It froze on a full disk, and there is room again.
            elif looks % _LOOK_FOR_FROST == 0 and self._server.frozen() and self._home.free_bytes() > self._room:
                log.error("the server froze and is started again", reason=self._server.frozen())
                await self._server.stop()
                await self._again()

    async def _again(self) -> None:
        """Start the server, and try again until it runs: the cause (a full disk, a missing file) may be mended."""
        wait = _FIRST_WAIT
        while True:
            try:
                self._server.spawn()
                await self._server.ready()
            except (SwarmError, OSError) as error:
                log.error("the server does not start", reason=str(error), again_in_s=wait)
                await self._server.stop()
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                log.info("the server is back", pid=self._server.pid)
                return


class OthersServer:
    """A server or cluster that others run; they make its users and streams with `bus.cluster`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pid: int | None = None

    async def let_in(self, name: str, user: UserKey) -> None:
        """See `Broker.let_in`; others run this server, so it only checks that the user can connect, else `Refused`."""
        await self._try(name, f"{GUEST}{name}", user, f"--guest {name}={user.public}")

    async def let_out(self, name: str) -> None:
        """See `Broker.let_out`; the server's owner removes the user, whose messages are no longer admitted."""

    async def let_person_in(self, name: str, user: UserKey, rights: tuple[Right, ...]) -> None:
        """See `Broker.let_person_in`; others run this server, so it only checks that the user can connect."""
        await self._try(name, f"{PERSON}{name}", user, f"--person {name}={user.public}={','.join(rights)}")

    async def let_person_out(self, name: str) -> None:
        """See `let_out`; a person's commands are refused by their key."""

    async def _try(self, name: str, identity: str, user: UserKey, adding: str) -> None:
        try:
            async with connect(self.url, identity, user):
                return
        except Refused:
            raise Refused(
                f"the server at {self.url} does not know the user of {name!r}, and is not ours to configure.",
                cure=f"Add it there (python -m bus.cluster accounts {adding}), then try again.",
            ) from None

    async def keep(self) -> None:
        """Nothing to look after; the connection comes back by itself."""
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def broker(home: Home, settings: Settings, lock: int) -> AsyncIterator[Broker]:
    """The server that the settings ask for, ready."""
    if settings.url:
        yield OthersServer(settings.url)
        return
    await end_orphan_of(home)
    users, room = Users.of(home.seeds), settings.store_bytes + (2 << 30)
    server = EmbeddedServer(home.root, users, max_store=room, lock_fds=(lock,))
    server.spawn()
    try:
        await server.ready()
        yield OwnServer(home, server, settings.min_free_disk_bytes)
    finally:
        await server.stop()


async def end_orphan_of(home: Home) -> None:
    """A server whose host died is ended before another opens its store: two would corrupt it."""
    left = recorded_server(home.root)
    if left is not None and left.alive():
        log.warning("ending the server of a dead host", pid=left.pid)
        await end_orphan(left)
