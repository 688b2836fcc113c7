"""How the best member of a population came to its state, and the commands that train it again from the beginning."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import orjson

from contracts.hyperparameter_specialist import SearchState
from contracts.session import SessionState
from runtime.views.blocks import Block, PageColumn, PageTable, Phrase, Text
from runtime.views.formatting import in_words

if TYPE_CHECKING:
    from contracts.replies import LineageStageReply


def lineage(session: SessionState) -> list[LineageStageReply]:
    """The stages of the best member of a population that has ended, each with the command that trains it again.

    A stage begins at the very step of the one before, which therefore need not pause there.
    """
    traced = SearchState.of(session).lineage
    stages: list[LineageStageReply] = []
    before: dict[str, object] = {}
    for stage in traced.stages if traced else ():
        names = [f"again-{session.id[3:11]}-{place}" for place in (len(stages), len(stages) + 1)]
        change = {path: value for path, value in stage.parameters.items() if before.get(path) != value}
        change = change if stages else {"training.pauses": []}
        words = ["swarm", "fork", names[0] if stages else stage.session, "--at", str(stage.step)]
        for path, value in change.items():
            words += ["--set", f"{path}={orjson.dumps(value).decode()}"]
        before = {**stage.parameters}
        stages.append(
            {
                "number": stage.number,
                "session": stage.session,
                "step": stage.step,
                "parameters": before,
                "command": shlex.join([*words, "--request-id", names[1]]),
            }
        )
    return stages


def lineage_blocks(stages: Sequence[LineageStageReply]) -> Iterator[Block]:
    """The stages as a table, and below it the commands."""
    if not stages:
        return
    rows = tuple(
        (stage["step"], stage["number"], in_words(stage["parameters"]), Phrase(stage["session"], code=True))
        for stage in stages
    )
    columns = (PageColumn("from step", "count"), PageColumn("trial", "count"), PageColumn("parameters"))
    yield PageTable((*columns, PageColumn("session", "code")), rows)
    yield Text("The best member is trained again from its beginning by:")
    yield PageTable((PageColumn("command", "code"),), tuple((Phrase(stage["command"], code=True),) for stage in stages))
