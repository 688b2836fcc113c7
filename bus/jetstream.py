"""The bus over a real NATS server: the only file that imports `nats`, and where the parts are put together.

nats-py keeps the socket, the handshake and the reconnects; messages are framed and routed here, because its own paths
lose the client to one oversized message, hide denials behind timeouts, and queue facts while it is disconnected.
"""

import asyncio
import contextlib
import itertools
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from nats import errors as nats_errors
from nats.aio.client import Client, Server, Srv
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from bus.core_wire import CoreWire
from bus.durables import DurableWakes, Layout, StreamAdmin
from bus.frames import WireMessage, delivered, publication
from bus.link import Close, ConnectionClosedError, Handler, Link, Lost, NoResponder, Silent
from bus.nkeys import UserKey
from bus.rights import at_edge, inbox
from bus.stream_log import StreamLog
from contracts.errors import InvalidInput, Refused, SwarmError, Unreachable

_PING = 5
"""Seconds between pings; two without answer end a connection that only looks alive."""
_AT_ONCE = 2**18
_WEB = ("ws", "wss")
_PATIENCE = 10.0
_WATCH = 1.0
_RETRY = (0.05, 2.0)
"""The first and the longest pause between two tries to reconnect."""
_NO_RESPONDER = 503
_SCHEMES = ("nats", "tls", "ws", "wss")
_DENIED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]*)\"")


class _Transport(TcpTransport):
    """nats-py's, taking all that has come instead of pieces of 32 KiB."""

    async def read(self, buffer_size: int) -> bytes:
        return await super().read(max(buffer_size, _AT_ONCE))  # type: ignore[no-any-return]


class _Parser(Parser):
    """The parser of nats-py, except that messages are read in place; it leaves everything else to the original."""

    def __init__(self, client: Client, handlers: Mapping[int, Handler]) -> None:
        super().__init__(client)
        self._handlers = handlers

    def reset(self) -> None:
        super().reset()
        self._rest = b""

    async def parse(self, data: bytes = b"") -> None:
        data, at = self._rest + data, 0
        while True:
            at, other = delivered(data, at, self._handlers)
            if not other:
                break
            line = data.find(b"\r\n", at) + 2
            await super().parse(data[at:line])
            at = line
        self._rest = data[at:]


class _Client(Client):
    """nats-py's client with messages handed to plain functions, and no life after the death of its read loop."""

    def __init__(self, key: UserKey | None) -> None:
        super().__init__()
        self._handlers: dict[int, Handler] = {}
        self._ps = _Parser(self, self._handlers)
        self._public_nkey = key.public if key else None

    @property
    def deaf(self) -> bool:
        """Whether the server has closed the connection and the client has not noticed: what is written now is lost."""
        return bool(self._transport) and bool(self._transport.at_eof())  # type: ignore[union-attr]

    @property
    def given_up(self) -> bool:
        """Whether it is closed, or its reconnecting has ended without a connection."""
        trying = self._reconnection_task is not None and not self._reconnection_task.done()
        return self.is_closed or not (self.is_connected or trying)

    async def write(self, frames: bytes) -> None:
        """Straight to the socket: what nats-py queues would be sent after a reconnect, behind our own second try."""
        if self._transport is None:
            raise OSError("not connected")
        self._transport.write(frames)
        await self._transport.drain()  # type: ignore[no-untyped-call]

    async def hear(self, subject: str, queue: str, handler: Handler) -> Subscription:
        # The future keeps nats-py from starting a task or an iterator of its own; it is never used.
        unused: asyncio.Future[None] = asyncio.Future()
        subscription = await self.subscribe(subject, queue=queue, future=unused)
        self._handlers[subscription._id] = handler  # noqa: SLF001 - there is no public name for it
        await self._write_pending()
        return subscription

    async def round_trip(self, seconds: float) -> None:
        """Return once the server has answered everything that was sent before; `TimeoutError`."""
        answered: asyncio.Future[bool] = asyncio.Future()
        await self._write_pending()
        await self._send_ping(answered)
        async with asyncio.timeout(seconds):
            await asyncio.shield(answered)  # the answer may still come, and nobody cancels what nats-py will fill in

    async def _write_pending(self) -> None:
        # nats-py would wait for its flusher here, and drops a cancellation that comes meanwhile: whoever was cancelled
        # then goes on for ever.
        if self._transport is None or not self._pending:
            return
        waiting, self._pending, self._pending_data_size = self._pending, [], 0
        self._transport.writelines(waiting)
        await self._transport.drain()  # type: ignore[no-untyped-call]

    async def _connect_to_server(self, s: Srv) -> None:
        if self._transport:
            self._transport.close()  # type: ignore[no-untyped-call]  # a failed try would leave its socket open
        elif s.uri.scheme not in _WEB:
            self._transport = _Transport()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._handlers.pop(sid, None)

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected:
            await self._process_op_err(nats_errors.UnexpectedEOF())


@dataclass(eq=False, slots=True)
class _Listening:
    subject: str
    queue: str
    handler: Handler
    subscription: Subscription | None = None
    denied: bool = False


@dataclass(eq=False, slots=True)
class _PendingReply:
    answer: asyncio.Future[WireMessage]
    subjects: frozenset[str]
    empty: bool


class NatsLink:
    """`bus.link.Link` over nats-py."""

    def __init__(self, urls: Sequence[str], identity: str, key: UserKey | None, tls: ssl.SSLContext | None) -> None:
        self.identity = identity
        self.limit = 0
        self._urls = list(urls)
        self._key = key
        self._tls = tls
        self._client = _Client(key)
        self._up = asyncio.Event()
        self._closed = False
        self._watch: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[str, _PendingReply] = {}
        self._listening: dict[_Listening, None] = {}
        self._told: dict[Callable[[], None], None] = {}
        self._why = "no answer"
        self._answers = self.new_inbox()

    async def open(self, patience: float) -> None:
        """Connect for the first time. Raises `Unreachable`, or `Refused` when the server does not know the key."""
        await self._connect(patience)
        await self.listen(f"{self._answers}.*", self._answered)
        self._watch = asyncio.create_task(self._rebuild_when_dead())

    async def _close_client(self) -> None:
        try:
            await self._client.close()
        except asyncio.CancelledError:
            # When the server threw the client out, a task of nats-py waits for the end of the same socket; the client
            # cancels it, and with it what both wait for.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise

    async def close(self) -> None:
        """Close for good; what was sent before arrives."""
        if self._watch:
            self._watch.cancel()
        if self._client.is_connected:
            with contextlib.suppress(TimeoutError, nats_errors.Error, OSError):
                await self._client.round_trip(2)
        if self.limit:  # nats-py cannot close what was never connected
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._close_client()
        self._lose()
        self._closed = True
        self._up.set()  # whoever waits for the connection learns that it will not come

    async def connected(self, patience: float | None = 5.0) -> None:
        """See `Link.connected`."""
        if self._up.is_set() and self._client.deaf:
            self._lose()
        if self._closed:
            raise ConnectionClosedError("The connection is closed.", cure="Open another.")
        try:
            async with asyncio.timeout(patience):
                await self._up.wait()
        except TimeoutError:
            raise self._unreachable() from None
        if self._closed:
            raise ConnectionClosedError("The connection was closed.", cure="Open another.")

    def new_inbox(self) -> str:
        """See `Link.new_inbox`."""
        return f"{inbox(self.identity)}.{secrets.token_hex(11)}"

    def on_loss(self, tell: Callable[[], None]) -> Callable[[], None]:
        """See `Link.on_loss`."""
        self._told[tell] = None
        return lambda: self._told.pop(tell, None)

    async def ask(self, subject: str, body: bytes = b"", *, patience: float = 5.0) -> WireMessage:
        """See `Link.ask`."""
        return await self._ask(lambda reply: publication(subject, reply, b"", body), (subject,), patience, empty=True)

    async def ask_all(self, frames: Callable[[str], bytes], subjects: Collection[str], patience: float) -> WireMessage:
        """See `Link.ask_all`."""
        return await self._ask(frames, subjects, patience, empty=False)

    async def send(self, frames: bytes) -> None:
        """See `Link.send`."""
        if self._closed or not self._up.is_set():
            raise self._unreachable()
        try:
            await self._client.write(frames)
        except (OSError, RuntimeError) as broken:
            raise Lost(f"The connection broke while sending ({broken}).", cure="Try again.") from broken

    async def listen(self, subject: str, handler: Handler, *, queue: str = "") -> Close:
        """See `Link.listen`."""
        await self.connected()
        listening = _Listening(subject, queue, handler)
        self._listening[listening] = None
        try:
            listening.subscription = await self._client.hear(subject, queue, handler)
            if not subject.startswith(inbox(self.identity)):
                await self._client.round_trip(_PING)  # after which a denial would have come
        except (TimeoutError, OSError, nats_errors.Error) as broken:
            await self._unlisten(listening)
            raise Lost(f"The connection broke while subscribing ({broken}).", cure="Try again.") from broken
        if listening.denied:
            await self._unlisten(listening)
            raise Refused(f"{self.identity!r} may not hear {subject!r}.", cure="See bus/rights.py.")
        return lambda: self._unlisten(listening)

    async def _unlisten(self, listening: _Listening) -> None:
        self._listening.pop(listening, None)
        subscription, listening.subscription = listening.subscription, None
        if subscription is not None:
            with contextlib.suppress(nats_errors.Error, OSError):
                await subscription.unsubscribe()

    async def _ask(
        self, frames: Callable[[str], bytes], subjects: Collection[str], patience: float, *, empty: bool
    ) -> WireMessage:
        token = str(next(self._numbers))
        asked = _PendingReply(asyncio.get_running_loop().create_future(), frozenset(map(str.lower, subjects)), empty)
        self._asked[token] = asked
        try:
            async with asyncio.timeout(patience):
                await self.send(frames(f"{self._answers}.{token}"))
                frame = await asked.answer
        except TimeoutError:
            raise Silent(f"No answer within {patience} s to {min(subjects)!r}.", cure="Try again.") from None
        finally:
            self._asked.pop(token)
            asked.answer.cancel()
        if frame.status == _NO_RESPONDER:
            raise NoResponder(f"Nobody listens on {min(subjects)!r}.", cure="Is the swarm up?")
        return frame

    def _answered(self, frame: WireMessage) -> None:
        asked = self._asked.get(frame.subject.rpartition(".")[2])
        if asked and not asked.answer.done() and (frame.body or asked.empty or frame.status):
            asked.answer.set_result(frame)

    async def _connect(self, patience: float) -> None:
        client = _Client(self._key)
        try:
            async with asyncio.timeout(patience):
                await client.connect(
                    self._urls,
                    name=self.identity,
                    inbox_prefix=inbox(self.identity),
                    signature_cb=self._key.sign if self._key else None,
                    tls=self._tls,
                    allow_reconnect=False,
                    reconnect_time_wait=_RETRY[0],  # type: ignore[arg-type]  # seconds, annotated as whole ones
                    max_reconnect_attempts=-1,
                    reconnect_to_server_handler=_next_server,
                    ping_interval=_PING,
                    pending_size=0,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_loss,
                    reconnected_cb=self._on_return,
                )
        except (TimeoutError, OSError, nats_errors.Error) as failed:
            await client.close()
            if "authorization violation" in str(failed).lower():
                raise Refused(
                    f"The server at {', '.join(self._urls)} does not know the key of {self.identity!r}.",
                    cure="Use the credentials that `swarm status --json` names.",
                ) from None
            raise self._unreachable() from failed
        # A first connection fails fast; an established one comes back.
        client.options["allow_reconnect"] = True
        self._client, self.limit = client, client.max_payload
        self._up.set()

    async def _rebuild_when_dead(self) -> None:
        """Watch the client, and connect again whenever nats-py has closed it for good or stopped reconnecting."""
        while True:
            await asyncio.sleep(_WATCH)
            if not self._client.given_up:
                continue
            self._lose()
            with contextlib.suppress(SwarmError, nats_errors.Error, OSError):
                await self._client.close()
                await self._connect(_PATIENCE)
                for each in list(self._listening):
                    each.subscription = await self._client.hear(each.subject, each.queue, each.handler)

    async def _on_error(self, error: Exception) -> None:
        self._why = str(error) or self._why
        denied = _DENIED.search(self._why)
        if denied is None:
            return
        kind, subject = denied.groups()
        if kind == "subscription":
            for listening in self._listening:
                listening.denied |= listening.subject.lower() == subject
        for asked in self._asked.values():
            if kind == "publish" and subject in asked.subjects and not asked.answer.done():
                refusal = Refused(f"{self.identity!r} may not publish to {subject!r}.", cure="See bus/rights.py.")
                asked.answer.set_exception(refusal)

    async def _on_loss(self) -> None:
        self._lose()

    async def _on_return(self) -> None:
        self.limit = self._client.max_payload
        self._up.set()

    def _lose(self) -> None:
        self._up.clear()
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(Lost("The connection was lost before the answer came.", cure="Try again."))
        for tell in list(self._told):
            tell()

    def _unreachable(self) -> Unreachable:
        return Unreachable(
            f"The server at {', '.join(self._urls)} does not answer ({self._why}).",
            cure="Start it with `swarm up`, or name another with --url.",
        )


def _addresses(url: str | Sequence[str]) -> list[str]:
    """The servers that a URL names; `InvalidInput` for what is none."""
    addresses = [address.strip() for address in (url.split(",") if isinstance(url, str) else url)]
    for address in addresses:
        try:
            place = urlsplit(address if "://" in address else f"nats://{address}")
            sound = place.scheme in _SCHEMES and bool(place.hostname) and place.port != 0
        except ValueError:
            sound = False
        if not sound:
            raise InvalidInput(f"{address!r} is no address of a server.", cure="Write nats://HOST:PORT.", path="url")
    return addresses


def _next_server(servers: list[Server], _info: dict[str, object]) -> tuple[Server | None, float]:
    """The one that failed least, after a pause that grows with its failures."""
    chosen = min(servers, key=lambda server: server.reconnects)
    first, longest = _RETRY
    return chosen, min(longest, first * 2.0 ** min(chosen.reconnects, 10)) if chosen.reconnects else 0.0


class JetStreamBus(StreamLog, DurableWakes, CoreWire):
    """`Log`, `Wakes` and `Wire` of one identity on one connection."""

    def __init__(self, link: Link, *, partition: str = "00") -> None:
        StreamLog.__init__(self, link, partition=partition, edge=at_edge(link.identity))
        DurableWakes.__init__(self, link, stream=f"EV_{partition}")
        CoreWire.__init__(self, link)


class JetStreamAdmin(JetStreamBus, StreamAdmin):
    """The log as the identity `admin` reaches it: it may also create streams and consumers."""

    def __init__(self, link: Link, *, partition: str = "00", layout: Layout | None = None) -> None:
        JetStreamBus.__init__(self, link, partition=partition)
        StreamAdmin.__init__(self, link, layout or Layout(partition=partition))


@contextlib.asynccontextmanager
async def connect(
    url: str | Sequence[str],
    identity: str,
    key: UserKey | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    patience: float = _PATIENCE,
    partition: str = "00",
) -> AsyncIterator[JetStreamBus]:
    """The bus as one identity sees it (a role, "client", "owner", or "guest_NAME"), until the context ends.

    `url` may name several servers of one cluster, separated by commas.
    """
    async with _linked(url, identity, key, tls, patience) as link:
        yield JetStreamBus(link, partition=partition)


@contextlib.asynccontextmanager
async def connect_admin(
    url: str | Sequence[str],
    key: UserKey | None = None,
    *,
    layout: Layout | None = None,
    tls: ssl.SSLContext | None = None,
    patience: float = _PATIENCE,
) -> AsyncIterator[JetStreamAdmin]:
    """The bus as the provisioning identity sees it."""
    layout = layout or Layout()
    async with _linked(url, "admin", key, tls, patience) as link:
        yield JetStreamAdmin(link, partition=layout.partition, layout=layout)


@contextlib.asynccontextmanager
async def _linked(
    url: str | Sequence[str], identity: str, key: UserKey | None, tls: ssl.SSLContext | None, patience: float
) -> AsyncIterator[NatsLink]:
    link = NatsLink(_addresses(url), identity, key, tls)
    try:
        await link.open(patience)
        yield link
    finally:
        await link.close()
