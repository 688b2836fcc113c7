"""Who computes which span of an audit, and which account of it counts."""

from __future__ import annotations

from contracts.audit import AuditState
from contracts.common import HandlerFailed
from contracts.event import Event
from contracts.exporter import ExportRepeated
from contracts.findings import AuditedMachine, AuditFindings, Mode, RecordedExport, SpanDivergence, SpanPlanned
from contracts.ids import ZERO, session_id, uuid8
from contracts.trainer import AuditPlanned, SpanRepeated, SpanTaken
from tests.contracts.told import fact

SESSION = session_id(uuid8("audit"))
SPANS = [
    SpanPlanned(number=1, segments=1, begins=0, ends=50),
    SpanPlanned(number=2, segments=1, begins=50, ends=150),
    SpanPlanned(number=3, segments=1, begins=150, ends=200),
]


PASSED = AuditFindings(session="s", mode="log", verdict="pass")


def made(export: str) -> RecordedExport:
    return RecordedExport(
        export=export, place=1, seq=1, filename="model.onnx", blob=ZERO, beside={}, sources={}, order=None
    )


def planned(mode: Mode = "full", chosen: tuple[int, ...] = (1, 2, 3)) -> AuditPlanned:
    return AuditPlanned(
        session="s", mode=mode, size=9, root=ZERO, log=PASSED, spans=SPANS, chosen=list(chosen), cuts=[], broken=[],
        exports=[made("e1"), made("e2")], machine=AuditedMachine(threads=1), ended=True, reached=200,
    )  # fmt: skip


def taken(span: int, who: str = "a/1", instead_of: str | None = None) -> SpanTaken:
    return SpanTaken(span=span, worker="w", incarnation=who, instead_of=instead_of)


LOSSES = SpanDivergence(
    name="window.recorded", first=50, last=70, place=9, seq=9, segment=1, field="losses", recorded="a", computed="b"
)


def repeated(span: int, divergence: SpanDivergence | None = None) -> SpanRepeated:
    return SpanRepeated(span=span, steps=50, divergence=divergence, located=None, fingerprint=ZERO)


def folded(*events: Event) -> AuditState:
    """Event number n has the id `n`."""
    audit = AuditState()
    for at, event in enumerate(events, 1):
        audit = audit.advance(fact(event, at, lane="trainer", session=SESSION))
    return audit


def numbers(audit: AuditState) -> list[int]:
    return [one.number for one in audit.waiting()]


def test_of_two_that_take_a_span_at_once_the_earlier_one_has_it() -> None:
    audit = folded(planned(), taken(1, "a/1"), taken(1, "b/1"))
    assert (audit.holders[1].id, audit.holders[1].incarnation) == ("2", "a/1")


def test_a_span_is_taken_over_only_from_the_one_that_has_it() -> None:
    audit = folded(planned(), taken(1, "a/1"), taken(1, "b/1", "2"), taken(1, "c/1", "2"), taken(1, "d/1"))
    assert (audit.holders[1].id, audit.holders[1].incarnation) == ("3", "b/1")


def test_the_first_plan_counts() -> None:
    audit = folded(planned(chosen=(1,)), planned(chosen=(1, 2)))
    assert (numbers(audit), audit.planned_id) == ([1], "1")


def test_the_longest_spans_come_first_and_what_was_computed_is_not_waited_for() -> None:
    assert numbers(folded(planned())) == [2, 1, 3]
    assert numbers(folded(planned(), taken(2), repeated(2))) == [1, 3]


def test_a_bisection_goes_by_number_and_needs_nothing_behind_the_first_divergence() -> None:
    assert numbers(folded(planned("bisect"))) == [1, 2, 3]
    assert numbers(folded(planned("bisect"), repeated(2, LOSSES))) == [1]


def test_of_two_accounts_of_a_span_the_one_that_found_something_counts() -> None:
    for one, other in ((repeated(1), repeated(1, LOSSES)), (repeated(1, LOSSES), repeated(1))):
        assert folded(planned(), one, other).repeated[1].divergence == LOSSES


def test_exports_are_waited_for_until_the_exporter_has_answered_or_failed() -> None:
    said = ExportRepeated(export="e1", filename="model.onnx")
    assert folded(planned(), said).unexported() == ["e2"]
    failed = HandlerFailed(role="exporter", handler="repeat", heard="1", error="no", attempts=3)
    assert folded(planned(), said, failed).unexported() == []
    assert folded(planned(), failed.model_copy(update={"heard": "9"})).unexported() == ["e1", "e2"]
