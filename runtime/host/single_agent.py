"""One agent alone in a process of its own: a guest, or a built-in role beside a host. It owns no server and no desk."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
import structlog

from bus import nkeys, subjects
from bus.jetstream import connect
from bus.keys import KeyStore, Signer, read_private, signer_of
from bus.rights import seed_file
from contracts.errors import InvalidInput, NotFound, Unreachable
from contracts.keyring import keyring_of
from contracts.roles import BUILT_IN
from runtime.commands.guests import credentials
from runtime.home.home import NOBODY_ELSE, Home
from runtime.home.settings import Settings
from runtime.host import logs
from runtime.jobs.event_loop import end_requested
from runtime.log.lane_writer import Find
from runtime.node.agent import Agent
from runtime.node.node import Node

log = structlog.get_logger()


@dataclass(frozen=True)
class AgentIdentity:
    """What lets an agent speak: its lane, where the bus is, its identity there, its signing key, and whom it trusts."""

    lane: str
    url: str
    user: nkeys.UserKey
    signer: Signer
    root: str
    """The fingerprint of the root key under which it reads the log."""
    find: Find
    """Where the key that follows its own would be."""


def identity_of(settings: Settings, name: str) -> AgentIdentity:
    """The identity of a built-in role, from the keys of the home, or of a guest, from its credentials file alone."""
    home = Home(settings.home)
    if name not in BUILT_IN:
        path = Path(settings.creds) if settings.creds else credentials(home, name)
        return _guest_identity(path, name, settings.url)
    host, store = home.host(), KeyStore(home.keys)
    if not settings.url and (host is None or not host.alive):
        raise Unreachable(f"no swarm runs in {str(home.root)!r}.", cure="Start it: swarm up -d; or name one with --url")
    url, user = settings.url or (host.url if host else ""), nkeys.read(seed_file(home.seeds, name))
    return AgentIdentity(name, url, user, store.load(name), store.pinned(), store.holding)


def _guest_identity(path: Path, name: str, url: str) -> AgentIdentity:
    try:
        found = orjson.loads(read_private(path))
        lane = f"{subjects.GUEST}{found['name']}"
        user, signer = nkeys.from_seed(found["seed"]), signer_of(lane, found["key"].encode(), path)
        url, find = url or str(found["url"]), partial(_guest_key, path)
        return AgentIdentity(lane, url, user, signer, str(found["root"]), find)
    except FileNotFoundError:
        cure = f"Admit it: swarm agent new {name}"
        raise NotFound(f"there are no credentials of an agent {name!r} at {str(path)!r}.", cure=cure) from None
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        cure = f"Make it anew: swarm agent new {name}"
        raise InvalidInput(f"{str(path)!r} is no credentials file of a guest.", cure=cure) from None


def _guest_key(path: Path, lane: str, public: str) -> Signer | None:
    """The key with this public part in a credentials file: the guest's own, or the one that is to follow it."""
    try:
        found = orjson.loads(read_private(path))
        held = [signer_of(lane, found[one].encode(), path) for one in ("key", "next") if one in found]
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return next((one for one in held if one.public == public), None)


async def run_agent(
    settings: Settings, name: str, kind: type[Agent], *, ready: Callable[[AgentIdentity], None]
) -> None:
    """Run the agent until SIGTERM or SIGINT; `ready` is called once it hears."""
    logs.configure(settings.log_level, as_json=settings.log_json)
    own, home = identity_of(settings, name), Home(settings.home)
    if name in BUILT_IN:
        os.umask(NOBODY_ELSE)
        home.prepare(settings.blobs)
    instance = f"{own.lane.replace('_', '-')}-{secrets.token_hex(4)}"
    async with connect(own.url, own.lane, own.user) as bus, end_requested() as ending:
        keys = {own.lane: own.signer}
        node = Node(bus, settings, keys, instance=instance, root=own.root, keep_copies=False, find_key=own.find)
        node.tail.keyring = keyring_of(own.root)
        node.tail.follow_queue(own.root)
        async with node.working() as tasks:
            # Up to where everything is sealed, if the host of this very home has written that down.
            await node.follow(tasks, after=0 if settings.url or settings.creds else home.tail_after())
            node.employ(tasks, {own.lane: kind})
            await node.ready()
            ready(own)
            await ending.wait()
            await node.drain(lambda: any(one.purpose != "zygote" for one in node.children.running()))
        log.info("ended in good order", agent=own.lane)
