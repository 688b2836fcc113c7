"""A whole crew in the test's own process on the in-memory bus: real keys, real folds, real children, no server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bus.keys import KeyStore
from bus.memory import MemoryBus
from contracts.common import ChildEnded
from contracts.envelope import Fact
from contracts.ids import PARTITION
from contracts.roles import BUILT_IN
from contracts.session import ENDED, SessionState
from contracts.trainer import TrainingClaimed
from runtime.commands import deployment_keys
from runtime.commands.queue_keeper import QueueKeeper
from runtime.home import settings
from runtime.home.home import Home
from runtime.host import local_swarm
from runtime.host.swarm_node import SwarmNode
from runtime.log.session_log import SessionLog
from runtime.node import roster
from runtime.node.agent import Agent

FAST = {"waive_after_seconds": 2.0, "ledger_every_seconds": 0.5, "takeover_after_seconds": 1.0}


@asynccontextmanager
async def crew(
    home: Path, roles: Iterable[str] = BUILT_IN, *, bus: MemoryBus | None = None, queue: bool = False, **given: Any
) -> AsyncIterator[SwarmNode]:
    """Agents of these roles at work on a memory bus, in a home of their own; with a `queue` as a host keeps it."""
    place = Home(home)
    options = settings.load(home=str(home), **(FAST | given))
    place.prepare(options.blobs)
    made = local_swarm.make_node(bus or MemoryBus(), options, deployment_keys.signers(KeyStore(place.keys)), PARTITION)
    if queue:
        made.tail.follow_queue(made.tail.admission.root)

    async def opening(made: SwarmNode) -> str:
        store = KeyStore(made.home.keys)
        session = await deployment_keys.open_keyring(made.bus, made.tail, made.keys, store, made.source)
        if queue:
            keepers.append(QueueKeeper(made))
            await keepers[0].keep()
        return session

    keepers: list[QueueKeeper] = []
    async with local_swarm.run_agents(made, roles, opening) as tasks:
        for keeper in keepers:
            tasks.create_task(keeper.run())
        yield made


@asynccontextmanager
async def beside(
    made: SwarmNode, roles: Iterable[str] | Mapping[str, type[Agent]], name: str, home: Path | None = None
) -> AsyncIterator[SwarmNode]:
    """Agents of these roles in what might be a process of its own, with the keys of the same deployment."""
    agents = roles if isinstance(roles, Mapping) else roster.load_all(roles)
    options = replace(made.settings, home=home or made.settings.home)
    own = SwarmNode(made.bus, options, made.keys, instance=name, root=made.tail.admission.root, keep_copies=False)
    own.tail.keyring = made.tail.keyring
    async with own.working() as tasks:
        await own.follow(tasks)
        own.employ(tasks, agents)
        await own.ready()
        yield own


QUIET = 20.0
"""Seconds without an event and without a child at work after which what is waited for will not come."""


async def until_ended(made: SwarmNode, session: str, seconds: float = 60.0) -> SessionState:
    """The session once it is sealed."""
    history = made.tail.history(session)
    async with asyncio.timeout(seconds):
        while history.state.state not in ENDED:
            await _something_more(made, history)
    return history.state


async def until_said(made: SwarmNode, session: str, name: str, seconds: float = 60.0) -> Fact:
    """The first event of that name in the session."""
    history = made.tail.history(session)
    async with asyncio.timeout(seconds):
        while True:
            for fact in history.facts:
                if fact.name == name:
                    return fact
            await _something_more(made, history)


async def _something_more(made: SwarmNode, history: SessionLog) -> None:
    """Return with the next event; fail at once when nobody is left who would say it."""
    while True:
        try:
            async with asyncio.timeout(QUIET):
                return await history.grown(history.size)
        except TimeoutError:
            if not any(one.session for one in made.children.running()):
                told = [fact.name for fact in history.facts][-5:]
                message = f"{history.id} is {history.state.state}, idle for {QUIET:g} s, and ends with {told}"
                raise AssertionError(message) from None


async def kill_child(made: SwarmNode, purpose: str, seconds: float = 30.0) -> None:
    """Kill a child at this work as soon as there is one; without one this fails, for then nothing was tried."""
    async with asyncio.timeout(seconds):
        while not (struck := [one.pid for one in made.children.running() if one.purpose == purpose and one.pid]):
            await asyncio.sleep(0.002)
    for pid in struck:
        os.kill(pid, signal.SIGKILL)


def killed(made: SwarmNode, session: str) -> int:
    """How many children's deaths by a kill the session tells of."""
    ends = [fact.event for fact in made.tail.history(session).facts if isinstance(fact.event, ChildEnded)]
    return sum(one.signal == signal.SIGKILL for one in ends)


def small_request(**changes: Any) -> dict[str, Any]:
    """A training of a few hundred steps that takes about a second."""
    request: dict[str, Any] = {
        "name": "small",
        "data": {"source": "digits", "split": {"train": 0.8, "val": 0.1, "test": 0.1, "stratify": True}},
        "model": {"architecture": "mlp", "hidden": [32], "dropout": 0.1},
        "loss": {"type": "cross_entropy"},
        "optimizer": {"type": "adamw", "learning_rate": 0.001},
        "training": {"epochs": 5, "batch_size": 64},
        "checkpoints": {"every_steps": 50},
        "export": {"formats": []},
        "diagnosis": {"auto_fix": True},
    }
    return request | changes


def claim(epoch: int, resolved: Mapping[str, Any] | None = None) -> TrainingClaimed:
    """A trainer's claim that says as little as can be beside the plan."""
    return TrainingClaimed(
        epoch=epoch,
        worker=f"w{epoch}",
        incarnation=f"home/{epoch}",
        segment=1,
        resumed_from=0,
        dataset="0" * 64,
        resolved=dict(resolved or {}),
        engine_bits=1,
        fingerprint="0" * 64,
        families={},
        environment={},
        sources={},
    )
