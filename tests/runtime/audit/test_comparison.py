"""What a process tells of a span is compared by one that knows the records; nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from contracts.errors import NotFound, UserCodeFailed
from contracts.event import pack
from contracts.findings import AuditedMachine, SpanDivergence, SpanPlanned
from contracts.trainer import CheckpointWritten, TrainingCompleted, WindowRecorded, WindowSensors
from runtime.engine import loop
from runtime.jobs.codec import NotOfType
from runtime.replay import audit_subject, comparison, reexecute, stepwise
from runtime.replay.audit_plan import AuditPlan
from runtime.replay.audit_runner import ComparedAnswer, uncomputable_span
from runtime.replay.comparison import SpanComparison
from runtime.replay.jobs import (
    Conditions,
    ReplayData,
    SpanEnd,
    SpanFile,
    SpanQuery,
    compute_span,
    trace_operators,
)
from runtime.replay.spans import RecordedEnd, SpanRecord, SpanSpec
from runtime.replay.steps import locate_divergence
from runtime.replay.verdict import Divergence, SpanResult, Verdict, replay_verdict
from tests.runtime.recorded_home import DIGEST, completed, evaluated, window

ENDED = {
    "step": 100,
    "finished": True,
    "stopped_early": False,
    "best_step": 100,
    "weights_digest": DIGEST,
    "state_root": DIGEST,
}


def kept(step: int) -> CheckpointWritten:
    return CheckpointWritten(
        segment=1, step=step, reason="final", state_root=DIGEST, weights_digest=DIGEST, blob=DIGEST, bytes=12
    )


RECORDED = [window(0, 50), evaluated(50, 0.5), window(50, 100), evaluated(100, 0.25), kept(100)]


def span(events: list[Any] = RECORDED, *, whole: bool = True, outcome: TrainingCompleted | None = None) -> SpanSpec:
    """A span of a hundred steps with these records, written to a file and read again."""
    spec = SpanSpec(
        plan={"changes": []},
        segments=1,
        begins=0,
        ends=100,
        start=None,
        records=tuple(SpanRecord(event, at, at, 1) for at, event in enumerate(events, 5)),
        evaluations=(),
        outcome=RecordedEnd(outcome, 90, 90) if outcome else None,
        after=(80, 80),
        whole=whole,
    )
    return SpanSpec.model_validate_json(spec.model_dump_json())


def found(spec: SpanSpec, events: list[Any], ended: dict[str, Any] | None = None) -> SpanDivergence | None:
    """The first divergence when these are told."""
    comparison = SpanComparison(spec)
    for event in events:
        if divergence := comparison.computed(event):
            return divergence
    if ended is not None:
        comparison.ended(SpanEnd(**ended))
    return comparison.left()


def test_what_came_out_as_recorded_has_no_divergence_and_counts_its_steps() -> None:
    assert found(span(), RECORDED) is None
    comparison = SpanComparison(span())
    comparison.computed(window(0, 50))
    assert comparison.steps == 50


def test_a_process_cannot_tell_of_more_steps_than_its_span_has() -> None:
    comparison = SpanComparison(span(whole=False))
    comparison.computed(window(100, 5000))
    assert comparison.steps == 100


@pytest.mark.parametrize("at", range(len(RECORDED)))
def test_a_record_that_is_not_told_again_diverges_at_its_own_place(at: int) -> None:
    divergence = found(span(), [*RECORDED[:at], *RECORDED[at + 1 :]])
    assert divergence is not None
    assert (divergence.name, divergence.place) == (RECORDED[at].wire, 5 + at)


@pytest.mark.parametrize("at", range(len(RECORDED)))
def test_what_is_told_and_was_not_recorded_diverges_where_it_belongs(at: int) -> None:
    divergence = found(span([*RECORDED[:at], *RECORDED[at + 1 :]]), RECORDED)
    assert divergence is not None
    assert (divergence.name, divergence.recorded) == (RECORDED[at].wire, "nothing")
    left = enumerate([*RECORDED[:at], *RECORDED[at + 1 :]], 5)
    later = [place for place, one in left if _last(one) > _last(RECORDED[at])]
    assert divergence.place == min(later, default=80)


def _field(divergence: SpanDivergence | None) -> str:
    return divergence.field if divergence else ""


def _last(event: Any) -> int:
    return int(event.last if isinstance(event, WindowRecorded) else event.step)


def test_a_line_that_ended_in_mid_sentence_may_lack_its_last_words_and_checkpoints_and_nothing_else() -> None:
    cut = span(RECORDED[:3], whole=False)
    assert found(cut, RECORDED) is None
    assert found(cut, [window(0, 50), evaluated(50, 0.5), kept(50), window(50, 100)]) is None
    assert found(span(RECORDED[1:3], whole=False), RECORDED) is not None


CHANGES = {
    "losses": pack(b"\0\0\0\0" * 50),
    "index_digest": "j",
    "weights_digest": "0" * 64,
    "learning_rate": 0.002,
    "gradient_norm": 1.25,
    "scalars": {"more": pack(b"\0\0\0\0" * 50)},
    "sensors": WindowSensors(cosine=pack(b"\0\0\0\0")),
    "finite": False,
    "layer_names": ["a"],
    "segment": 2,
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_a_window_counts(field: str) -> None:
    changed = window(0, 50).model_copy(update={field: CHANGES[field]})
    divergence = found(span(), [changed])
    assert divergence is not None
    assert divergence.field.partition(".")[0] == field


def test_why_a_checkpoint_was_kept_is_no_part_of_what_was_computed() -> None:
    assert found(span(), [*RECORDED[:-1], kept(100).model_copy(update={"reason": "planned"})]) is None
    for field in ("state_root", "weights_digest", "blob"):
        changed = kept(100).model_copy(update={field: "0" * 64})
        assert _field(found(span(), [*RECORDED[:-1], changed])) == field


@pytest.mark.parametrize("field", ENDED)
def test_every_word_of_an_ending_counts(field: str) -> None:
    spec = span(outcome=completed(DIGEST))
    assert found(spec, RECORDED, ENDED) is None
    other: dict[str, Any] = {"step": 50, "finished": False, "stopped_early": True, "best_step": 50}
    assert _field(found(spec, RECORDED, ENDED | {field: other.get(field, "0" * 64)})) == "end"
    nothing = ENDED | {field: None}
    if field == "best_step":
        assert _field(found(spec, RECORDED, nothing)) == "end"
    else:
        with pytest.raises(NotOfType):
            compute_span.signature.tells["SpanEnd"].decode(nothing)
    assert _field(found(spec, RECORDED)) == "end", "a process that says nothing of the end is not believed"


def test_a_window_that_is_not_at_its_end_begins_with_the_recorded_losses() -> None:
    comparison = SpanComparison(span())
    assert comparison.begun_window(window(50, 60)) is None
    losses = np.ones(10, "<f4")
    losses[3] = 2
    changed = window(50, 60).model_copy(update={"losses": pack(losses.tobytes())})
    begun = comparison.begun_window(changed)
    assert begun is not None
    assert begun.step == 53


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("WindowRecorded", {}),
        ("WindowRecorded", []),
        ("BegunWindow", {"window": {}}),
        ("SpanEnd", ENDED | {"finished": 1}),
        ("SpanEnd", ENDED | {"more": 1}),
    ],
)
def test_what_no_computation_gives_is_refused_where_it_arrives(kind: str, raw: object) -> None:
    with pytest.raises(NotOfType):
        compute_span.signature.tells[kind].decode(raw)
    assert "TrainingCompleted" not in compute_span.signature.tells


def test_a_process_that_computes_is_given_no_record() -> None:
    task = span(outcome=completed(DIGEST)).task
    told = orjson.loads(task.model_dump_json())
    assert told.keys() == {"plan", "begins", "ends", "start", "evaluations", "kept", "closes", "questions"}
    assert (task.kept, task.closes) == ((100,), True)


def test_where_all_bytes_are_gone_nothing_passes_and_where_some_are_the_rest_does() -> None:
    spans = tuple(SpanPlanned(number=at, segments=1, begins=50 * at, ends=50 * at + 50) for at in (0, 1))
    docket = AuditPlan("full", 0, spans, (0, 1), (), ended=True, reached=100, events=9)
    log, error = Verdict("s", "pass"), NotFound("blob x is not here.")
    gone, fine = uncomputable_span(error, 0, gone=True), SpanResult(steps=50, divergence=None)
    assert replay_verdict(log, docket, {0: gone, 1: gone}).verdict == "not-comparable"
    assert replay_verdict(log, docket, {0: gone, 1: fine}).verdict == "pass"
    code = replay_verdict(log, docket, {0: uncomputable_span(error, 0, gone=False), 1: fine})
    assert (code.verdict, len(code.differing)) == ("not-comparable", 1)
    wrong = AuditPlan("full", 0, spans, (0, 1), (Divergence(3, 3, "x", "y"),), ended=True, reached=100, events=9)
    assert replay_verdict(log, wrong, {}, differing=["family gelu"]).verdict == "fail"


class Refusing:
    """Jobs whose code raises."""

    conditions = Conditions.of(AuditedMachine())

    async def compared(self, job: object, query: SpanQuery, spec: SpanSpec) -> ComparedAnswer[Any]:
        if job is trace_operators:
            raise UserCodeFailed("not in here.", cure="Ask nothing.")
        return ComparedAnswer((), None, 0)


TASK = SpanFile(Path("span.json"), ReplayData(Path("rows"), Path("blobs"), None))


async def test_code_that_fails_when_a_divergence_is_located_does_not_make_it_go_away() -> None:
    changed = window(0, 50).model_copy(update={"losses": pack(b"\0\0\0\0" * 50)})
    divergence = found(span(), [changed])
    assert divergence is not None
    located = await locate_divergence(Refusing(), TASK, span(), 3, divergence)  # type: ignore[arg-type]
    assert (located.span, located.window) == (3, [0, 50])
    assert "not in here" in located.sentences[0]


def test_results_of_spans_are_kept_only_for_the_code_that_computed_and_compared_them() -> None:
    """A notebook of an interrupted audit is read by the engine's digest, which goes over all of these files."""
    needed = {Path(module.__file__) for module in (loop, comparison, reexecute, stepwise)}
    assert needed <= set(audit_subject.span_sources())
