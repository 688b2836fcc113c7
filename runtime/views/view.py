"""A session as people and programs are shown it: pure functions from the fold to JSON values."""

import contextlib
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import to_json

from contracts import replies
from contracts.common import HandlerFailed
from contracts.data_manager import DatasetRejected
from contracts.envelope import Fact
from contracts.errors import count_of
from contracts.event import Event, Unknown, events
from contracts.exporter import EXPORT, ExportingState, ExportRefused
from contracts.hyperparameter_specialist import SearchCancelled, SearchCompleted, SearchState
from contracts.keyring import KeyRevoked, Keyring, KeyRotated, advance
from contracts.kind import owed
from contracts.operator import PauseRequested
from contracts.queue import Queue, QueuedSession, Slot
from contracts.request.space import value_at
from contracts.resource_monitor import AdviceJudged, ResourcesAdvised
from contracts.session import ENDED, SessionState
from contracts.trainer import AuditCompleted, TrainingFailed
from runtime.views.formatting import finite, in_words, size
from runtime.views.lineage import lineage


class SessionMoment(replies.SessionReply):
    """A session as it was after one of its events: which of how many, how many voids there are, and that event."""

    at: int
    of: int
    voids: int
    event: replies.EventReply


def summary(session: SessionState, blobs: Path | None = None, queue: Queue | None = None) -> replies.SessionReply:
    """What `run`, `wait` and `show` print: one flat object. `queue` is that of the swarm, where it is at hand."""
    return {
        "session": session.id,
        "kind": session.kind.name,
        "name": session.request.get("name", ""),
        "state": session.state,
        "step": session.step,
        "steps_total": session.own.total_steps,
        "epoch": session.training.evaluations[-1].epoch if session.training.evaluations else 0,
        "weights_digest": session.weights_digest,
        "metrics": session.metrics,
        "best_step": session.training.best.step if session.training.best else None,
        "last": last(session),
        "best_trial": best_trial(session),
        "front": front(session),
        "lineage": lineage(session),
        "range_test": range_test(session),
        "artifacts": artifacts(session, blobs),
        "refused": refused(session),
        "interventions": interventions(session),
        "proposals": proposals(session),
        "wall_s": wall_seconds(session),
        "events": session.events,
        "segments": len(session.training.segments),
        "sealed": session.sealed.root if session.sealed else None,
        "owed": [duty.name for duty in owed(session)],
        "problem": problem(session),
        "waits": waits(session, queue),
        "verdict": session.outcome.verdict if isinstance(session.outcome, AuditCompleted) else None,
        "requested_at": session.requested_at,
        "parent": session.genesis.parent if session.genesis else None,
        "fork": fork(session),
        "resources": resources_reply(session),
    }


def waits(session: SessionState, queue: Queue | None = None) -> str:
    """What a session waits for while it does not train yet: its place and why; empty for any other."""
    if session.outcome is not None:
        return ""
    if session.training.claim is None and any(isinstance(wish, PauseRequested) for _, wish in session.wishes):
        return f"for a person, who paused it before it began (swarm resume {session.id})"
    if session.training.dataset is None:
        return ""
    if queue is not None and (place := queue.place(session.id)):
        return f"for its turn to train: place {place} of {len(queue.queued)}: {why_waiting(queue, session.id)}"
    if session.state == "preparing":
        return "for its turn to train; so many train at once as this machine holds (setting `trainings`)"
    return ""


_MOST_NAMED = 3
"""Sessions with a slot that a sentence names."""


def why_waiting(queue: Queue, session: str) -> str:
    """Why a session that waits in the queue has no slot: who has them, and what it needs that is not there."""
    if not queue.limit:
        return "no trainer is there"
    holders, more = list(queue.slots)[:_MOST_NAMED], len(queue.slots) - _MOST_NAMED
    named = ", ".join(holders) + (f" and {more} more" if more > 0 else "")
    free = queue.limit - len(queue.slots)
    taken = f"taken by {named}" if free <= 0 else f"{free} free"
    reasons = [f"{count_of(queue.limit, 'slot')} (setting `trainings`), {taken}"]
    if not queue.fits(session):
        needs, possible = queue.queued[session].needs, queue.may_fit(session)
        rooms = queue.free if possible else queue.rooms
        figures = [(size(needs.memory_bytes), size(max(room.memory_bytes or 0 for room in rooms)), needs.memory_bytes)]
        figures += [(count_of(needs.devices, "device"), str(max(room.devices for room in rooms)), needs.devices)]
        wanted = " and ".join(want for want, _, count in figures if count)
        there = " and ".join(most for _, most, count in figures if count)
        if possible:
            reasons.append(f"needs {wanted}, {there} free")
        else:
            cure = "ask for less in `training.needs`, or start a trainer on a larger machine"
            reasons.append(f"needs {wanted}, and no trainer that is there has more than {there}: {cure}")
    elif free > 0 and (first := next((one for one in queue.waiting if queue.holds_others(one)), session)) != session:
        reasons.append(f"{first} goes first, which others have overtaken {queue.queued[first].overtaken} times")
    return "; ".join(reasons)


_MOST_LINES = 500
"""Waiting sessions that are listed; the number of all stands beside them."""


def queue_lines(queue: Queue | None) -> replies.QueueReply | None:
    """The queue as `swarm status` tells it; None where none is kept."""
    if queue is None:
        return None
    waiting = queue.waiting
    return {
        "limit": queue.limit,
        "slots": [_queued_line(slot, 0) for slot in queue.slots.values()],
        "length": len(waiting),
        "waiting": [
            {
                **_queued_line(queue.queued[session], place),
                "priority": queue.queued[session].priority,
                "why": why_waiting(queue, session),
            }
            for place, session in enumerate(waiting[:_MOST_LINES], 1)
        ],
    }


def _queued_line(entry: Slot | QueuedSession, place: int) -> replies.QueuedLine:
    return {
        "session": entry.session,
        "place": place,
        "since": entry.since,
        "asker": entry.asker,
        "memory_bytes": entry.needs.memory_bytes,
        "devices": entry.needs.devices,
    }


def fork(session: SessionState) -> replies.ParentReply | None:
    """In whose bits it began, and with which change."""
    return session.fork.parent if session.fork else None


def last(session: SessionState) -> replies.LastReply | None:
    """The newest evaluation, unless it is the best."""
    if not session.training.evaluations or session.training.evaluations[-1] is session.training.best:
        return None
    newest = session.training.evaluations[-1]
    return {"step": newest.step, "metrics": dict(newest.values)}


def best_trial(session: SessionState) -> replies.BestTrialReply | None:
    """The best trial of a search that has ended: its session, its value and the parameters that it was trained with."""
    search = SearchState.of(session)
    ended = session.outcome if isinstance(session.outcome, SearchCompleted | SearchCancelled) else None
    finished = next(
        (trial for trial in SearchState.of(session).finished if ended and trial.session == ended.best_session), None
    )
    if finished is None or finished.value is None:
        return None
    parameters = next((trial.parameters for trial in search.trials if trial.number == finished.number), {})
    best: replies.BestTrialReply = {
        "number": finished.number,
        "session": finished.session,
        "value": finished.value,
        "parameters": {**parameters},
    }
    metric = session.request.get("metric", "")
    if metric in finished.spread:
        best |= {"spread": finished.spread[metric], "seeds": len(finished.seeds)}
    if session.request.get("method", "search") == "search":
        best["data_path"] = str(value_at(session.request, "base.data.path") or "")
    return best


def front(session: SessionState) -> list[replies.FrontTrialReply]:
    """The trials of a search than which no other is better in all its objectives, of those that have ended so far; none
    where it has one."""
    search, wanted = SearchState.of(session), session.request.get("objectives") or ()
    front = session.outcome.front if isinstance(session.outcome, SearchCompleted) else []
    if wanted and not isinstance(session.outcome, SearchCompleted):
        # Late, because other sessions are shown without the schemas of requests.
        from contracts.request.objectives import Objective, front_of

        broken = {told.number for told in search.measured if not told.feasible}
        ended = [trial for trial in search.finished if trial.number not in broken]
        front = front_of(ended, [Objective.model_validate(objective) for objective in wanted])
    parameters = {trial.number: trial.parameters for trial in search.trials}
    spread = {trial.number: trial.spread for trial in search.finished}
    return [
        {
            "number": trial.number,
            "session": trial.session,
            "values": dict(trial.values),
            "score": trial.score,
            "parameters": {**parameters.get(trial.number, {})},
            "spread": spread.get(trial.number, {}),
        }
        for trial in front
    ]


def range_test(session: SessionState) -> replies.RangeTestReply | None:
    """What a range test shows: the rate that it suggests, and the losses at the rates that it tried, in their order."""
    suggested = SearchState.of(session).suggested
    if suggested is None:
        return None
    return {
        "suggestion": suggested.suggestion,
        "steepest": suggested.steepest,
        "diverged_at": suggested.diverged_at,
        "rates": list(suggested.rates),
        "losses": [loss if math.isfinite(loss) else None for loss in suggested.losses],
    }


def interventions(session: SessionState) -> list[dict[str, object]]:
    """The applied interventions as plain data, numbered from 1; `swarm prove --intervention` takes these numbers."""
    return [
        {
            "number": number,
            "id": id,
            "by": applied.by,
            "step": applied.step,
            "segment": applied.segment,
            "changes": applied.changes,
        }
        for number, (id, applied) in enumerate(session.training.applied, 1)
    ]


def proposals(session: SessionState) -> list[replies.ProposalReply]:
    """The proposals that wait for a person while the session goes on, by their number among all, from 1."""
    numbers = {id: number for number, (id, _) in enumerate(session.training.proposals, 1)}
    waiting = session.training.waiting_proposals() if session.outcome is None else ()
    return [
        {"number": numbers[id], "id": id, "rule": seen.rule, "remedy": seen.remedy, "reason": seen.reason}
        for id, seen in waiting
    ]


def refused(session: SessionState) -> list[dict[str, object]]:
    """The files that were wanted of the model and could not be made; `asked` says whether the request wanted them."""
    wanted = (session.request.get("export") or {}).get("formats") or ()
    return [
        {**refusal.model_dump(mode="json"), "asked": refusal.format in wanted or session.kind is EXPORT}
        for refusal in ExportingState.of(session).refusals
    ]


def artifacts(session: SessionState, blobs: Path | None = None) -> list[dict[str, object]]:
    """Every file that a session produced and may be fetched."""
    files: list[dict[str, object]] = []
    for _, made in ExportingState.of(session).exports:
        model: dict[str, object] = {
            "kind": "model",
            "format": made.format,
            "quantize": made.quantize,
            "digest": made.blob,
            "bytes": made.bytes,
        }
        if blobs is not None and made.plain_filename:
            model["path"] = str(blobs.parent / "sessions" / session.id / "exports" / made.plain_filename)
        files.append(model)
    best = session.training.checkpoint("best")
    if best:
        files.append(
            {"kind": "checkpoint", "step": best.written.step, "digest": best.written.blob, "bytes": best.written.bytes}
        )
    return files


def wall_seconds(session: SessionState) -> float:
    """Seconds between the first event and the last, by the writers' clocks; 0 where one of them tells no time."""
    begun, ended = moment(session.requested_at), moment(session.ended_at or session.updated_at)
    return round((ended - begun).total_seconds(), 3) if begun and ended else 0.0


def moment(text: str) -> datetime | None:
    """The moment that an event's time names, taken as UTC where it says nothing else; None when it names none.

    A log may come from strangers, and its times are texts.
    """
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def problem(session: SessionState) -> replies.ProblemReply | None:
    """Why a session did not complete, as code, message, cure and place; None when it did or still may."""
    outcome = session.outcome
    if outcome is None or session.kind.state_at_end(session) == "completed":
        return None
    if isinstance(outcome, TrainingFailed):
        return {"code": outcome.code, "message": outcome.message, "cure": outcome.cure, "frame": outcome.frame}
    if isinstance(outcome, DatasetRejected):
        problems = outcome.model_dump()["problems"]
        text = "; ".join(finding.get("message", "") for finding in problems)
        return {"code": "dataset-rejected", "message": text, "cure": problems[0].get("cure", "") if problems else ""}
    told = outcome.model_dump()
    if isinstance(outcome, ExportRefused | HandlerFailed):
        return {"code": outcome.wire, "message": told.get("message") or told.get("error", ""), "cure": told["cure"]}
    if "message" in told:
        return {"code": outcome.wire.replace(".", "-"), "message": told["message"], "cure": told.get("cure", "")}
    return {"code": "cancelled", "message": told.get("reason") or "cancelled", "cure": ""}


def ended(session: SessionState) -> bool:
    """Whether the session's state is `completed`, `failed` or `cancelled`."""
    return session.state in ENDED


def event_line(fact: Fact) -> replies.EventReply:
    """One event as NDJSON: its place, who, what and the data.

    `understood` is false for a type that this software does not know, or that the lane has no say in: a guest's
    `training.completed` is shown and means nothing.
    """
    return {
        "seq": fact.position,
        "stream_seq": fact.seq,
        "time": fact.envelope.time,
        "lane": fact.lane,
        "laneseq": fact.envelope.laneseq,
        "name": fact.name,
        "understood": not isinstance(fact.event, Unknown),
        "id": fact.id,
        "cause": fact.envelope.causationid,
        "digest": fact.digest,
        "data": data_of(fact.event),
    }


def data_of(event: Event) -> Any:
    """An event's data in its JSON form."""
    if not isinstance(event, Unknown):
        return event.model_dump(mode="json")
    try:
        orjson.dumps(event.data)
    except TypeError:
        # A stranger's numbers may be larger than our JSON writer takes; then its text is shown.
        return json.dumps(event.data)
    return event.data


def event_of(line: replies.EventReply) -> Event:
    """The event that a line of `event_line` tells; `Unknown` for one that is not understood there, or not here."""
    kind, data = events().get(line["name"]) if line["understood"] else None, to_json(line["data"])
    if kind is not None:
        # Whoever made the line may be another version of this software.
        with contextlib.suppress(ValidationError):
            return kind.model_validate_json(data)
    return Unknown(name=line["name"], body=b'{"data":%b}' % data)


def key_lines(facts: Iterable[Fact]) -> list[replies.KeyReply]:
    """Every key of a keyring in the order of admission: whose it is, and from when until when it counts, and why."""
    ring, times, ends = Keyring(), {0: ""}, {}
    for fact in facts:
        ring, times = advance(ring, fact), times | {fact.seq: fact.envelope.time}
        if isinstance(fact.event, KeyRotated):
            ends[fact.event.old] = "rotated"
        elif isinstance(fact.event, KeyRevoked):
            ends[fact.event.key] = f"revoked: {fact.event.reason}"
    return [
        {
            "key": key.id,
            "role": key.role,
            "public": key.public,
            "guest": key.guest,
            "rights": list(key.rights),
            "in_force": key.until is None,
            "since": key.since,
            "since_time": times[key.since],
            "until": key.until,
            "until_time": times[key.until or 0] or None,
            "ended": ends.get(key.id),
        }
        for key in ring.keys.values()
    ]


def resources_reply(session: SessionState) -> replies.ResourcesReply | None:
    """What a session used of its machine, in a few values; None before an event tells of it."""
    training = session.training
    summed, newest = training.resources, training.measured[-1] if training.measured else None
    if summed is None and newest is None:
        return None
    joules = sum(finite(one.joules) for one in training.measured if one.joules is not None)
    return {
        "cpu_percent": summed.cpu_percent_mean if summed else newest.cpu_percent if newest else 0.0,
        "memory_bytes": summed.memory_bytes_max if summed else newest.memory_bytes if newest else 0,
        "session_memory_bytes": max((one.session_memory_bytes for one in training.measured), default=None),
        "gpu_percent": newest.gpu_percent if newest else None,
        "joules": sum(finite(gpu.joules) for gpu in summed.gpus) if summed else joules,
        "alerts": len(training.alerts),
        "advice": [advice_in_words(advice) for advice in training.advice],
        "advice_taken": [judgement_in_words(judged) for judged in training.advice_taken],
    }


def advice_in_words(advice: ResourcesAdvised) -> str:
    """What is advised, instead of what, why, and what it promises."""
    before, promise = in_words(advice.instead_of), f"{advice.factor:.4g} times the {figure_in_words(advice)}"
    return f"{in_words(advice.options)} (instead of {before}), because {advice.reason}; expect {promise}"


def judgement_in_words(judged: AdviceJudged) -> str:
    """Which advice a training took, and what it was worth."""
    held = "as promised" if judged.held else f"where {judged.promised:.4g} times was promised"
    figures = f"{figure_in_words(judged)} {judged.before:.4g} there, {judged.after:.4g} here, {held}"
    return f"took the advice of {judged.session} ({in_words(judged.options)}): {figures}"


def figure_in_words(told: ResourcesAdvised | AdviceJudged) -> str:
    """The figure that advice is about, as a page names it."""
    return told.figure.replace("_", " ")
