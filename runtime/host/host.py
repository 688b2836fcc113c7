"""The host: one light process with the embedded server and every agent. The composition root of a home.

It holds the home's lock, keeps the server, and drains on SIGTERM.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping

import orjson
import structlog

from bus import nkeys
from bus.disk import write_file
from bus.durables import Layout
from bus.jetstream import JetStreamAdmin, connect, connect_admin
from bus.keys import KeyStore
from bus.rights import seed_file
from contracts.errors import Failed, NotVerified, Refused
from contracts.keyring import keyring_session
from contracts.roles import ROOT
from contracts.signed_command import CLIENT
from runtime.commands import deployment_keys
from runtime.commands.guests import Guests
from runtime.commands.queue_keeper import QueueKeeper
from runtime.home.home import NOBODY_ELSE, Home, HostRecord
from runtime.home.settings import Settings
from runtime.host.swarm_node import Reporter, SwarmNode
from runtime.jobs import garbage, process
from runtime.jobs.event_loop import end_requested
from runtime.log import recovery
from runtime.node import roster
from runtime.node.agent import Agent
from runtime.node.broker import Broker, broker, end_orphan_of
from runtime.node.node import wake_subjects

log = structlog.get_logger()

HOST = "host"
_RECORD_PAUSE = 1.0
_REPORT_SECONDS = 5.0
_DYING_SECONDS = 5.0

Ready = Callable[[HostRecord], None]


async def serve(settings: Settings, *, ready: Ready) -> None:
    """Run until SIGTERM or SIGINT; `ready` is called once server and agents are."""
    roster.hosted_roles(settings.without)
    home = Home(settings.home)
    os.umask(NOBODY_ELSE)
    home.prepare(settings.blobs)
    garbage.collect_seldom()
    host = home.host()
    if host is not None and host.alive:
        raise Refused(f"a host (pid {host.pid}) runs in {str(home.root)!r} already.", cure="Use it, or: swarm down")
    lock = await _locked(home)
    # Importing the agents takes as long as the server takes to start.
    agents = asyncio.create_task(asyncio.to_thread(roster.load_all))
    try:
        async with broker(home, settings, lock) as server:
            await _Host(home, settings, server, await agents).run(ready)
    finally:
        agents.cancel()
        if home.holds():
            home.forget()
        home.unlock()


async def _locked(home: Home) -> int:
    """The home's lock; a server that outlived its host holds it too, and is ended for it.

    What a killed host held is free when its last thread has ended, a moment after it no longer counts as alive.
    """
    try:
        return home.lock()
    except Refused:
        if home.holder_lives():
            raise
    await end_orphan_of(home)
    patience = time.monotonic() + _DYING_SECONDS
    while True:
        try:
            return home.lock()
        except Refused:
            if home.holder_lives() or time.monotonic() > patience:
                raise
        await asyncio.sleep(0.01)


class _Host:
    """What lives between the server's start and its end."""

    def __init__(self, home: Home, settings: Settings, broker: Broker, agents: Mapping[str, type[Agent]]) -> None:
        self._home = home
        self._settings = settings
        self._broker = broker
        self._agents = agents

    async def run(self, ready: Ready) -> None:
        """Everything, until asked to end."""
        keys = deployment_keys.signers(KeyStore(self._home.keys))
        client = {"url": self._broker.url, "seed": nkeys.keep(seed_file(self._home.seeds, CLIENT)).seed}
        write_file(self._home.creds, orjson.dumps(client))
        layout = Layout(replicas=self._settings.replicas, facts_bytes=self._settings.store_bytes)
        admin_key, host_key = (nkeys.keep(seed_file(self._home.seeds, who)) for who in ("admin", HOST))
        async with (
            connect_admin(self._broker.url, admin_key, layout=layout) as admin,
            connect(self._broker.url, HOST, host_key) as bus,
        ):
            await admin.provision()
            root = KeyStore(self._home.keys).pinned()
            node = SwarmNode(bus, self._settings, keys, instance=self._home.instance(), root=root)
            node.tail.keyring = keyring_session(keys[ROOT].public)
            node.tail.follow_queue(root)
            async with end_requested(log.warning) as ending:
                await self._work(node, admin, ready, ending)

    async def _work(self, node: SwarmNode, admin: JetStreamAdmin, ready: Ready, ending: asyncio.Event) -> None:
        agents, here = self._agents, roster.hosted_roles(self._settings.without)
        guests = Guests(node, admin, self._broker)
        guests.follow_the_server()
        node.commands.admit_guest, node.commands.stored_bytes = guests.admit, admin.stored_bytes
        node.commands.keys.guests, node.commands.keys.people.broker = guests, self._broker
        reporter = Reporter(node.tail, node.home, node.children, root=KeyStore(self._home.keys).pinned())
        async with node.working() as tasks:
            tasks.create_task(self._broker.keep(), name="server")
            tasks.create_task(asyncio.to_thread(recovery.remove_leftovers, node.home), name="leftovers")
            await self._compare(node)
            await node.follow(tasks, after=node.home.tail_after())
            await deployment_keys.open_keyring(node.bus, node.tail, node.keys, KeyStore(node.home.keys), node.source)
            await node.commands.keys.people.settle()
            await asyncio.gather(*(admin.consumer(role, wake_subjects(kind)) for role, kind in agents.items()))
            tasks.create_task(node.commands.run(), name="desk")
            tasks.create_task(QueueKeeper(node).run(), name="queue")
            tasks.create_task(guests.watch(), name="guests")
            node.employ(tasks, {role: agents[role] for role in here})
            await node.ready()
            tasks.create_task(self._keep_record(node, guests, ready), name="record")
            tasks.create_task(reporter.run(), name="reports")
            await ending.wait()
            training = {one.session for one in node.children.running() if one.purpose == "train"}
            if training:
                log.info("draining", sessions=len(training))
            # A child leaves before the log says so; only what the log says can be taken up again.
            states = [node.tail.history(session) for session in training]
            await node.drain(lambda: not all(one.state.training.pause or one.state.outcome for one in states))
            await reporter.settle(_REPORT_SECONDS)
        log.info("ended in good order")

    async def _compare(self, node: SwarmNode) -> None:
        """Before anything is said: whether the store still holds what this home has copied from it."""
        try:
            await recovery.refuse_if_set_back(node.bus, self._home, self._broker.url)
        except NotVerified as error:
            self._home.note_incident(error)
            raise
        self._home.forget_incident()

    async def _keep_record(self, node: SwarmNode, guests: Guests, ready: Ready) -> None:
        first, written = True, None
        while True:
            if not self._home.holds():
                message = f"the home {str(self._home.root)!r} was removed while its swarm was up."
                raise Failed(message, cure="Start it again: swarm up -d")
            record = self._describe(node)
            try:
                if record != written:
                    self._home.record(record)
                    written = record
                missing, after = node.copies.missing() if node.copies else None, node.tail.resume_after()
                self._home.remember_tail(after if missing is None else min(after, missing - 1))
                guests.remember()
            except OSError as error:
                # A full disk must not end the host; what is written here can be made again.
                log.warning("the host's record cannot be written", reason=str(error))
            if first:
                ready(record)
                first = False
            await asyncio.sleep(_RECORD_PAUSE)

    def _describe(self, node: SwarmNode) -> HostRecord:
        pid = os.getpid()
        return HostRecord(
            pid=pid,
            start_time=process.start_time(pid) or 0,
            url=self._broker.url,
            server_pid=self._broker.pid,
            creds=str(self._home.creds),
            instance=node.instance,
            incarnation=node.ground.incarnation,
            ready=all(one["ready"] for one in node.agents()),
            agents=node.agents(),
            # One that is only just being forked has no pid yet.
            children=[one._asdict() for one in node.children.running() if one.pid],
        )
