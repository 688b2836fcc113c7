"""What is to be done next with a running session, and from which checkpoint it goes on. Pure functions of the fold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from contracts.diagnostician import InterventionProposed
from contracts.errors import SwarmError
from contracts.operator import CancelRequested, PauseRequested, ProposalApproved, ProposalRejected
from contracts.session import Checkpoint, SessionState
from runtime.engine.plain_kinds import read_levers

Kind = Literal["cancel", "pause", "rest", "drain", "end", "intervene"]


@dataclass(frozen=True)
class Decision:
    """One thing to do at the next grid step, and the event that asks for it."""

    kind: Kind
    cause: str = ""
    reason: str = ""
    proposal: InterventionProposed | None = None


def next_decision(
    session: SessionState, *, draining: bool = False, planned: bool = False, spent: bool = False
) -> Decision | None:
    """Cancel, then pause, then end, rewind, stop or change; None when training simply goes on.

    `planned` says that it holds where its plan pauses, `spent` that the seconds of its limits are."""
    for id, wish in session.wishes:
        if isinstance(wish, CancelRequested):
            return Decision("cancel", id, wish.reason)
    for id, wish in session.wishes:
        if isinstance(wish, PauseRequested):
            return Decision("pause", id)
    if planned or draining or spent:
        return Decision("rest" if planned else "drain" if draining else "end")
    training = session.training
    current = [
        (id, made)
        for id, made in training.open_proposals()
        if made.segment == training.segment.number
        and (not made.waits or isinstance(training.decided.get(id), ProposalApproved))
    ]
    if not current:
        return None
    rewinds = [asked for asked in current if asked[1].rewind_to is not None]
    stops = [asked for asked in current if ends_training(asked[1].changes)]
    id, proposal = (rewinds or stops or current)[0]
    return Decision("intervene", id, proposal.reason, proposal)


def hopeless_proposals(session: SessionState) -> list[tuple[str, str]]:
    """Proposals that cannot be followed any more, or never could, each with the reason why it is declined."""
    hopeless: list[tuple[str, str]] = []
    dataset = session.training.dataset
    counted = dataset is None or len(dataset.facts.counts) == dataset.facts.outputs
    for id, proposal in session.training.open_proposals():
        said = session.training.decided.get(id)
        if isinstance(said, ProposalRejected):
            hopeless.append((id, f"{said.asked_by} rejected it: {said.reason}".removesuffix(": ")))
        elif proposal.segment != session.training.segment.number:
            hopeless.append((id, "the segment it was made for is over"))
        elif proposal.rewind_to is not None and proposal.rewind_to < session.training.begins:
            reason = (
                f"step {proposal.rewind_to} lies before step {session.training.begins}, at which this session begins"
            )
            hopeless.append((id, reason))
        else:
            try:
                misfits = [lever.misfit(session.request, counted=counted) for lever in read_levers(proposal.changes)]
                hopeless += [(id, why) for why in misfits if why][:1]
            except SwarmError as error:
                hopeless.append((id, str(error)))
    return hopeless


def ends_training(changes: Mapping[str, object]) -> bool:
    """Whether training ends where these changes take effect."""
    return any(lever.ends for lever in read_levers(changes))


def judged(session: SessionState, step: int) -> bool:
    """Whether the diagnostician has seen the plan's last window, or has been recorded as unable to."""
    segment = session.training.segment
    if session.training.waived_judgement or ends_training(segment.changes):
        return True
    reached = session.training.diagnosed
    if reached is not None and (reached.segment, reached.step) == (segment.number, step):
        return True
    return any(failure.role == "diagnostician" for failure in session.failures)


def starting_point(session: SessionState, unusable: Iterable[str] = (), before: int | None = None) -> Checkpoint | None:
    """The newest checkpoint on the path, `before` a step if one is given, whose bytes may be there; None for step 0."""
    bad = set(unusable)
    usable = [kept for kept in session.training.path_checkpoints() if kept.usable and kept.written.blob not in bad]
    usable = [kept for kept in usable if before is None or kept.written.step < before]
    return usable[-1] if usable else None


def non_finite_weights(session: SessionState, step: int) -> tuple[str, str]:
    """Message and cure for a session whose final weights are not finite."""
    message = f"the weights at step {step} are not finite, so there is nothing to keep."
    cure = "Lower optimizer.learning_rate, or set training.grad_clip and diagnosis.mode."
    seen = [seen for _, seen in session.training.diagnoses if seen.rule == "non_finite" and "step" in seen.figures]
    if not seen:
        return message, cure
    first = int(seen[-1].figures["step"])
    trace = f"Which rows that step saw: swarm trace {session.id} --step {first}"
    return f"{message} {seen[-1].message}", f"{seen[-1].cure} {trace}"
