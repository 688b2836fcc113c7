"""Which checkpoints are judged on which split, and whether recorded values came out again bit for bit. Pure.

It runs in the validator, which never loads user code.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from contracts.checkpoint_keeper import CheckpointStored
from contracts.envelope import Fact
from contracts.session import SessionState
from contracts.trainer import CheckpointWritten, ControlEvaluated, TrainingClaimed, TrainingCompleted
from contracts.validator import ControlDetails, JudgementDetails
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import job, torch_profile
from runtime.log import retention
from runtime.replay.jobs import MachineIdentity

Control = Literal["reproduced", "differs", "not-comparable"]


@dataclass(frozen=True)
class Task:
    """One checkpoint to judge on one split; `recorded` are the control values that must come out again."""

    written: CheckpointWritten
    split: str
    request: dict[str, Any]
    dataset: str
    claim: TrainingClaimed
    changes: Sequence[Mapping[str, Any]] = ()
    """The decisions under which it was trained."""
    recorded: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgedState:
    """What the job is given of a task; what was recorded is not among it."""

    blobs: Path
    blob: str
    state_root: str
    split: str
    request: Mapping[str, object]
    dataset: str
    resolved: Mapping[str, Any]
    changes: Sequence[Mapping[str, Any]]
    """The decisions under which the state was trained."""
    step: int
    workloads: Sequence[WorkloadEntry]


@dataclass(frozen=True)
class SplitFigures:
    """How many rows a split has, the values of the metrics there as hex, and details about the answers."""

    rows: int
    values: Mapping[str, str]
    details: JudgementDetails


@job(
    purpose="evaluate",
    profile=lambda judged: torch_profile(judged.resolved["threads"], judged.resolved["device"]),
    ahead=("agents.validator.jobs",),
)
def judge(judged: JudgedState) -> SplitFigures:
    """Judge one checkpoint on one split, with the engine's own evaluation."""
    from agents.validator import jobs

    return jobs.judge(judged)


def tasks(kept: CheckpointStored, session: SessionState, facts: Iterable[Fact]) -> list[Task]:
    """What there is to judge because this checkpoint was stored: if it is, or was written as, the best or the end."""
    place = (kept.segment, kept.step)
    same = [each.written for each in session.training.checkpoints if retention.place(each) == place]
    found = [each for each in same if each.blob == kept.blob]
    written = max(found, key=lambda each: (_ends(each, session), each.reason in retention.JUDGED), default=None)
    if written is None:
        return []
    ends = _ends(written, session)
    return _tasks(written, session, facts, val=ends or written.reason in retention.JUDGED, test=ends)


def tasks_at_end(session: SessionState, facts: Iterable[Fact]) -> list[Task]:
    """What there is to judge because training has ended at a checkpoint that was stored before, for another reason."""
    last = session.training.checkpoint("last")
    if last is None or last.stored is None or last.written.reason == "final":
        return []
    written = last.written
    return _tasks(written, session, facts, val=written.reason not in retention.JUDGED, test=_ends(written, session))


def _ends(written: CheckpointWritten, session: SessionState) -> bool:
    """Whether training has ended there; it ends without another checkpoint where it is ended at a planned one."""
    ended = session.outcome
    at_end = isinstance(ended, TrainingCompleted) and (ended.step, ended.final_blob) == (written.step, written.blob)
    return at_end or written.reason == "final"


def _tasks(
    written: CheckpointWritten, session: SessionState, facts: Iterable[Fact], *, val: bool, test: bool
) -> list[Task]:
    if session.training.claim is None or session.training.dataset is None:
        return []
    training, about = session.training, (session.request, session.training.dataset.root, session.training.claim)
    first = training.segments[0].number

    def task(written: CheckpointWritten, split: str, recorded: dict[str, float]) -> Task:
        return Task(written, split, *about, training.changes(1 + written.segment - first), recorded)

    due = [task(written, "val", _recorded(written, session, facts))] if val else []
    wants_test = session.request.get("validation", {}).get("test_set", False) and session.training.dataset.splits.get(
        "test"
    )
    if test and wants_test:
        # The last evaluation is over, so the best will stay the best: it alone meets the test rows, and once.
        best = retention.named(session, "best")
        due.append(task(best.written if best else written, "test", {}))
    return due


def is_gone(written: CheckpointWritten, session: SessionState) -> bool:
    """Whether the checkpoint was deleted since: after the training a former best needs no verdict."""
    same = [each for each in session.training.checkpoints if each.written == written]
    return bool(same) and all(each.gone for each in same)


def _recorded(written: CheckpointWritten, session: SessionState, facts: Iterable[Fact]) -> dict[str, float]:
    """The control values of that step: of its own segment, else of the one that the path was on."""
    events = (fact.event for fact in facts)
    seen = [event for event in events if isinstance(event, ControlEvaluated) and event.step == written.step]
    same = [event for event in seen if event.segment == written.segment]
    on_path = [event for event in seen if session.training.on_path(event.segment, event.step)]
    last = (same or on_path)[-1:]
    return dict(last[0].values) if last else {}


class ControlComparison(NamedTuple):
    """Whether the control metric came out the same, and what there is to say about it."""

    control: Control
    about: ControlDetails


def differing_values(recorded: Mapping[str, str], computed: Mapping[str, str]) -> dict[str, list[str]]:
    """The recorded values that were not computed again, each with what was; exact floats as hex."""
    return {name: [text, computed.get(name, "")] for name, text in recorded.items() if computed.get(name) != text}


def compare_control(
    recorded: Mapping[str, str], wrong: Mapping[str, list[str]], claim: TrainingClaimed, here: MachineIdentity | None
) -> ControlComparison:
    """Equal bits are proof enough; only for what is `wrong` it counts whether this machine could have given the same.

    `here` is this machine; it is not looked at when nothing is wrong.
    """
    if not recorded:
        reason = "no control metric was recorded for this split and step"
        return ControlComparison("not-comparable", ControlDetails(reason=reason))
    if not wrong:
        return ControlComparison("reproduced", ControlDetails(values=len(recorded)))
    about = ControlDetails(recorded_and_computed=dict(wrong))
    if claim.resolved["profile"] != "exact":
        return ControlComparison("not-comparable", _because(about, "the session is not deterministic"))
    if here is None or claim.engine_bits != here.engine_bits:
        reason = f"engine bits {claim.engine_bits}, here {here.engine_bits if here else 'not measured'}"
        return ControlComparison("not-comparable", _because(about, reason))
    if claim.fingerprint != here.fingerprint:
        theirs, ours = claim.families, here.families
        families = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        about = _because(about, "another numeric fingerprint").model_copy(update={"families": families})
        return ControlComparison("not-comparable", about)
    return ControlComparison("differs", about)


def _because(about: ControlDetails, reason: str) -> ControlDetails:
    return about.model_copy(update={"reason": reason})
