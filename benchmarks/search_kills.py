"""A search whose processes are killed at drawn moments, held against the same search that nobody disturbs.

    kills            SIGKILLs of the host, the server, a child or all of them while the search was open
    differences      trials, pauses, decisions and values that are not those of the undisturbed search, what else is
                     not as it must be (`tests/chaos.py`), and what is told otherwise once everything beside the logs
                     of sessions is deleted
    trained_twice    attempts of trials that began before the newest checkpoint that the log had
    sessions         in which trials were trained

Trials are halved, so that kills also fall on pauses and on what follows from them. `--seeds N` trains each trial with N
seeds and judges it by loss and accuracy, so that they also fall between the sessions of a trial. `--population` trains
half as many members of a population, which copy each other. `--quick` takes eight trials and three kills.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import parser, report
from contracts.hyperparameter_specialist import SearchState
from contracts.ids import session_for
from contracts.request.search import read_search
from contracts.trainer import CheckpointWritten, TrainingClaimed
from runtime.log.archive import Archive
from runtime.views.summaries import Summaries
from tests import chaos
from tests.chaos import Arena
from tests.harness import crew, small_request, until_ended

NAME = "killed search"


async def main() -> None:
    """The undisturbed search, the disturbed one, and what differs."""
    asks = parser(__doc__ or "")
    asks.add_argument("--seed", type=int, default=20261, help="of the moments")
    asks.add_argument("--seeds", type=int, default=1, help="of each trial; several objectives where it is more than 1")
    asks.add_argument("--population", action="store_true", help="members of a population in the place of trials")
    asked = asks.parse_args()
    trials, kills = (8, 3) if asked.quick else (20, 10)
    wanted = populated(trials // 2) if asked.population else searched(trials, asked.seeds)
    session = session_for(NAME)
    with tempfile.TemporaryDirectory(prefix="search-kills") as folder:
        calm = Arena(Path(folder) / "calm")
        async with crew(calm.home.root) as made:
            await made.ground.submit(wanted, "search", asked_by="bench", request_id=NAME)
            await until_ended(made, session, 600.0)
        arena = Arena(Path(folder) / "killed")
        await chaos.risen(arena)
        async with arena.client() as swarm:
            await swarm.submit(wanted, request_id=NAME, kind="search")
        done = await chaos.torment(
            arena, session, random.Random(asked.seed), kills, kinds=("host", "server", "child", "all")
        )
        await arena.ended(session, 600.0)
        wrong = await arena.judge(session, calm.result(session))
        wrong += differences(state_of(calm, session), state_of(arena, session))
        trained = [(trial.number, one) for trial in state_of(arena, session).trials for one in trial.by_seed]
        twice = [text for number, one in trained for text in trained_twice(arena, one, number)]
        await arena.down()
        wrong += lost_with_caches(arena, session)
    figures = {"kills": done.total(), "differences": len(wrong), "trained_twice": len(twice), "sessions": len(trained)}
    report(asked, figures, {f"wrong {place}": text for place, text in enumerate([*wrong, *twice], 1)})
    sys.exit(bool(wrong or twice))


def searched(trials: int, seeds: int) -> Mapping[str, object]:
    """A search of small trainings that learns from its trials and halves them."""
    several = {"seeds": seeds, "objectives": [{"metric": "val_loss"}, {"metric": "val_accuracy"}]} if seeds > 1 else {}
    space = {
        "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "model.dropout": {"type": "float", "low": 0.0, "high": 0.5},
    }
    base = small_request(training={"epochs": 8, "batch_size": 32}, early_stopping={"enabled": False})
    raw = {
        "base": base,
        "space": space,
        "trials": trials,
        "parallel": 2,
        "sampler": "tpe",
        "halving": {"first_epochs": 2},
        **several,
    }
    return read_search(raw).resolved()


def populated(size: int) -> Mapping[str, object]:
    """A population of small trainings with three generations before the last."""
    base = small_request(training={"epochs": 8, "batch_size": 32}, diagnosis={"auto_fix": False})
    space = {
        "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "model.dropout": {"type": "float", "low": 0.05, "high": 0.5},
    }
    raw = {"method": "population", "base": base, "space": space, "size": size, "generation_epochs": 2, "parallel": 2}
    return read_search(raw).resolved()


def state_of(arena: Arena, session: str) -> SearchState:
    """The search as the files of a home tell it."""
    return SearchState.of(Archive(arena.home).read(session).history.state)


def lost_with_caches(arena: Arena, session: str) -> Iterator[str]:
    """What is told of the search and of all sessions otherwise when nothing is left of them but their logs."""

    def told() -> list[str]:
        sessions = sorted(path.name for path in arena.home.sessions.iterdir())
        # Read anew each time: an object remembers.
        return [str(state_of(arena, session)), *(str(Summaries(arena.home).summary(each)) for each in sessions)]

    before, log = told(), arena.home.log(session).name
    for path in arena.home.sessions.glob("*/*"):
        if path.name != log:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    yield from (f"without caches: {again}"[:500] for again, first in zip(told(), before, strict=True) if again != first)


def differences(calm: SearchState, killed: SearchState) -> Iterator[str]:
    """What one search tells otherwise than the other; the order in which trials came to an end does not count."""
    for name in ("trials", "paused", "finished", "rungs", "generations"):
        told = [sorted(str(event) for event in getattr(state, name)) for state in (calm, killed)]
        if told[0] != told[1]:
            yield f"{name}: {set(told[0]) ^ set(told[1])}"[:500]


def trained_twice(arena: Arena, session: str, number: int) -> Iterator[str]:
    """Attempts of a trial that began before the newest checkpoint of which its log told."""
    newest = 0
    for fact in arena.facts(session):
        if isinstance(fact.event, CheckpointWritten):
            newest = fact.event.step
        elif isinstance(fact.event, TrainingClaimed) and fact.event.resumed_from < newest:
            yield f"trial {number} went on from step {fact.event.resumed_from} and had step {newest}"


if __name__ == "__main__":
    asyncio.run(main())
