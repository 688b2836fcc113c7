"""A whole swarm in one process: every agent, a desk and the in-memory bus, in a home whose files outlive it.

Its events are in a partition of its own, with a keyring under the home's root. Its stream lives no longer
than the process; its sessions are in the files of the home like any other, and one that was interrupted goes on there.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from operator import attrgetter

from bus import subjects
from bus.files import read
from bus.keys import KeyStore, Signer
from bus.memory import MemoryBus
from contracts.errors import Refused
from contracts.keyring import keyring_session
from contracts.roles import BUILT_IN, ROOT
from runtime.commands import deployment_keys
from runtime.home.home import NOBODY_ELSE, Home
from runtime.home.settings import Settings
from runtime.host.swarm_node import Reporter, SwarmNode
from runtime.jobs.children import Children
from runtime.jobs.inline import InlineJobs
from runtime.log.archive import Archive
from runtime.node import roster
from runtime.node.node import wake_subjects

PARTITION = "me"
"""Where sessions are born that no server has seen."""

_REPORT_SECONDS = 60.0


@asynccontextmanager
async def run_local_swarm(settings: Settings, children: InlineJobs, session: str = "") -> AsyncIterator[SwarmNode]:
    """Every agent at work here; a `session` that was interrupted goes on from its file."""
    home = Home(settings.home)
    os.umask(NOBODY_ELSE)
    home.prepare(settings.blobs)
    with home_lock(home):
        keys = deployment_keys.signers(KeyStore(home.keys))
        node = make_node(_bus(home, keys, session), settings, keys, PARTITION, children)
        reporter = Reporter(node.tail, home, children, root=KeyStore(home.keys).pinned())

        def open_keyring(made: SwarmNode) -> Awaitable[str]:
            return deployment_keys.open_passing_keyring(made.bus, made.tail, made.keys, made.source)

        async with run_agents(node, BUILT_IN, open_keyring) as tasks:
            tasks.create_task(reporter.run(), name="reports")
            yield node
            if not children.misfit.is_set():
                sessions = node.tail.open_sessions
                await node.drain(
                    lambda: any(
                        one.state.training.claim and not (one.state.training.pause or one.state.outcome)
                        for one in sessions()
                    )
                )
            await reporter.settle(_REPORT_SECONDS)


def make_node(
    bus: MemoryBus, settings: Settings, keys: Mapping[str, Signer], partition: str, children: Children | None = None
) -> SwarmNode:
    """A node with every key of a home on a bus in memory."""
    home = Home(settings.home)
    pinned = KeyStore(home.keys).pinned()
    node = SwarmNode(bus, settings, keys, instance=home.instance(), root=pinned, children=children)
    node.tail.keyring = keyring_session(keys[ROOT].public, partition)
    return node


@asynccontextmanager
async def run_agents(
    node: SwarmNode, roles: Iterable[str], opening: Callable[[SwarmNode], Awaitable[str]]
) -> AsyncIterator[asyncio.TaskGroup]:
    """Agents of these roles at work on a bus in memory until the context is left; `opening` sees to the keyring."""
    agents, bus = roster.load_all(roles), node.bus
    assert isinstance(bus, MemoryBus)  # noqa: S101 - `make_node` gave it one
    async with node.working() as tasks:
        await node.follow(tasks)
        await opening(node)
        for role, kind in agents.items():
            await bus.consumer(role, wake_subjects(kind))
        tasks.create_task(node.commands.run(), name="desk")
        node.employ(tasks, agents)
        await node.ready()
        yield tasks


def _bus(home: Home, keys: Mapping[str, Signer], session: str) -> MemoryBus:
    """A stream that holds the keyring and the session as their files have them, where there are such files."""
    archive = Archive(home)
    ring = archive.ring(PARTITION)
    records = list(ring.stored) if ring else []
    if session and home.log(session).exists():
        records += archive.read(session).stored
    known = ring.admission.keyring(PARTITION).keys.values() if ring else ()
    exchanged = ring is not None and not {one.public for one in keys.values()} <= {one.public for one in known}
    # A key that ends now must end behind all that it ever signed, in sessions that are not read here too.
    after = max((_last(home, one) for one in home.session_ids()), default=0) if exchanged else 0
    return MemoryBus(partition=PARTITION, kept=sorted(records, key=attrgetter("seq")), after=after)


def _last(home: Home, session: str) -> int:
    if subjects.partition(session) != PARTITION:
        return 0
    return max((stored.seq for stored in read(home.log(session))), default=0)


@contextmanager
def home_lock(home: Home) -> Iterator[None]:
    """One process at a time tells sessions here, because they share a keyring's file."""
    with (home.root / "here.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            cure = "Wait for it, or use --home."
            raise Refused(f"another process trains with --here in {str(home.root)!r}.", cure=cure) from None
        yield
