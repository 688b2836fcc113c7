"""A real server with its streams, and a proxy that can lose an answer: what the tests of the bus stand on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bus import nkeys
from bus.durables import Layout
from bus.jetstream import JetStreamAdmin, JetStreamBus, connect, connect_admin
from bus.rights import Users, seed_file
from bus.server import EmbeddedServer
from tests.bus.conformance import WAKE_AGAIN


class Proxy:
    """Carries bytes between clients and a server until told to lose an append or its answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut: bool | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self, *, stored: bool) -> None:
        self._cut = stored

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        for source, target, mark, after in (
            (reader, far_writer, b"PUB swarm.ev.", False),
            (far_reader, writer, b'{"stream":"EV_', True),
        ):
            task = asyncio.create_task(self._carry(source, target, mark, after))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, mark: bytes, stored: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                if self._cut is stored and mark in chunk:
                    self._cut = None
                    self._hang_up()
                    return
                target.write(chunk)
                await target.drain()
        target.close()

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()


class Served:
    """A home with a running server; any identity can connect."""

    admin: JetStreamAdmin

    def __init__(self, home: Path, layout: Layout) -> None:
        self.home = home
        self.keys = home / "keys" / "nats"
        self.layout = layout
        self.server = EmbeddedServer(home, Users.of(self.keys))
        self._proxied: str = ""
        self._proxy: Proxy | None = None

    def key(self, identity: str) -> nkeys.UserKey:
        return nkeys.read(seed_file(self.keys, identity))

    @contextlib.asynccontextmanager
    async def bus(self, identity: str = "trainer") -> AsyncIterator[JetStreamBus]:
        url = self._proxied if identity == "trainer" else self.server.url
        async with connect(url, identity, self.key(identity)) as bus:
            yield bus

    async def restart(self) -> None:
        await self.server.stop()
        self.server.spawn()
        await self.server.ready()

    def cut(self, *, stored: bool) -> None:
        assert self._proxy is not None
        self._proxy.cut(stored=stored)

    async def guest(self, agent: str) -> None:
        key = nkeys.keep(seed_file(self.keys, f"guest_{agent}"))
        await self.server.admit(self.server.users.with_guest(agent, key.public))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Served"]:
        self.server.spawn()
        try:
            await self.server.ready()
            self._proxy = Proxy(int(self.server.url.rpartition(":")[2]))
            self._proxied = await self._proxy.open()
            async with connect_admin(self.server.url, self.key("admin"), layout=self.layout) as self.admin:
                await self.admin.provision()
                yield self
        finally:
            if self._proxy:
                await self._proxy.close()
            await self.server.stop()


@contextlib.asynccontextmanager
async def served(home: Path, **layout: float) -> AsyncIterator[Served]:
    async with Served(home, Layout(wake_again=WAKE_AGAIN, **layout)).running() as world:  # type: ignore[arg-type]
        yield world
