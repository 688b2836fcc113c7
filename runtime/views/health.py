"""How healthy a training was, as a page: its findings on the curves, what was tried, and what the next request changes.

Two of them beside each other are a page of their own.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from contracts.envelope import Fact
from contracts.errors import count_of
from contracts.session import SessionState
from runtime.diagnosis.health import (
    DiagnosisAnswer,
    ExpectedGain,
    FindingLine,
    HealthDifference,
    NextRequest,
    TriedLine,
)
from runtime.views.answer_pages import state_phrase
from runtime.views.blocks import (
    Block,
    Content,
    Curves,
    KeyFigure,
    KeyFigures,
    Mark,
    Page,
    PageColumn,
    PageSection,
    PageTable,
    Phrase,
    Text,
    Tone,
    key_figures,
)
from runtime.views.formatting import finite
from runtime.views.session_page import SEVERITY_TONES, advice_table, charts
from runtime.views.session_record import SessionRecord

SHOWN = ("loss", "metrics", "gradient_norm")
"""The curves on which findings are marked, by the names of their files."""
NOT_SAID = "found by the rules of today; not said in the session"


def diagnosis_page(answer: DiagnosisAnswer, session: SessionState, facts: Sequence[Fact]) -> Page:
    """Everything that is known of one session's health."""
    findings = answer["findings"]
    sections: list[tuple[str, list[Block]]] = [
        ("Findings", [*_findings(answer)]),
        ("Curves", [*_curves(findings, session, SessionRecord.of(session, facts))]),
        ("What was tried", [_tried(answer["tried"])] if answer["tried"] else []),
        ("What the advisor said", [advice_table(answer["advice"])] if answer["advice"] else []),
        ("What can be tried", [*_ladders(findings)]),
        ("The next request", [*_next(answer)]),
    ]
    parts = (PageSection(title, tuple(blocks)) for title, blocks in sections if blocks)
    lead = f"{session.kind.name} {session.id}, as of step {answer['step']}"
    return Page("Diagnosis", lead, (_overview(answer), *parts))


def _overview(answer: DiagnosisAnswer) -> KeyFigures:
    total = f" of {answer['steps_total']}" if answer["steps_total"] else ""
    on_path = [line for line in answer["findings"] if not line["superseded"]]
    counts = Counter(line["severity"] for line in on_path)
    names = (("critical", "critical"), ("warning", "warnings"), ("note", "notes"))
    told = ", ".join(count_of(counts[one], one, many) for one, many in names if counts[one])
    gravest: Tone = "bad" if counts["critical"] else "warn" if counts["warning"] else "good"
    figures = [
        KeyFigure("state", state_phrase(answer["state"])),
        KeyFigure("steps", f"{answer['step']}{total}"),
        KeyFigure("diagnosis", answer["mode"], note="" if answer["judged"] else NOT_SAID),
        KeyFigure("problems", Phrase(told or "none", gravest), note="on the path that training took"),
    ]
    if back := len(answer["findings"]) - len(on_path):
        note = f"with {count_of(answer['superseded_steps'], 'step')} that a rewind took back"
        figures.append(KeyFigure("superseded", count_of(back, "finding"), note=note))
    return KeyFigures(tuple(figures), large=True)


def _findings(answer: DiagnosisAnswer) -> Iterator[Block]:
    if not answer["findings"]:
        yield Text("No rule finds a problem.", "good")
        return
    names = ("", "severity", "sure", "steps", "rule", "said", "what was found, and the cure")
    rows = tuple(
        (
            line["number"],
            _severity(line),
            line["confidence"] or "",
            f"{line['first']}..{line['last']}" + (" (superseded)" if line["superseded"] else ""),
            line["rule"],
            "in the session" if line["said"] else Phrase("now", "note"),
            f"{line['message']} {line['cure']}".strip(),
        )
        for line in answer["findings"]
    )
    yield PageTable((PageColumn(names[0], "count"), *map(PageColumn, names[1:])), rows)
    if any(not line["said"] for line in answer["findings"]):
        yield Text(f"now: {NOT_SAID}.", "note")
    yield Text("The first explains those below it; what was superseded is on no path, and stands last.", "faint")


def _severity(line: FindingLine) -> Phrase:
    return Phrase(line["severity"], "faint" if line["superseded"] else SEVERITY_TONES.get(line["severity"], ""))


def _curves(findings: Sequence[FindingLine], session: SessionState, record: SessionRecord) -> Iterator[Block]:
    """The curves of the report, with each finding marked where it begins."""
    found = tuple(
        Mark(
            finite(line["first"]),
            f"{line['number']} {line['rule']}, steps {line['first']}..{line['last']}",
            _severity(line).tone or "note",
        )
        for line in findings
    )
    for block in charts(session, record):
        if isinstance(block, Curves) and block.file in SHOWN:
            yield replace(block, marks=tuple(sorted((*found, *block.marks), key=lambda mark: mark.x)))


def _tried(tried: Sequence[TriedLine]) -> PageTable:
    def outcome(line: TriedLine) -> Content:
        if line["helped"] is not None:
            helped, said = line["helped"], line["judgement"]
            return Phrase(f"helped: {said}", "good") if helped else Phrase(f"did not help: {said}", "bad")
        begun = f"became session {line['begun']}" if line["begun"] else ""
        return begun or line["because"]

    rows = tuple(
        (
            line["proposal"],
            line["rule"],
            line["remedy"],
            line["decision"] + (f" at step {line['step']}" if line["step"] is not None else ""),
            line["reason"],
            outcome(line),
        )
        for line in tried
    )
    names = ("rule", "remedy", "decision", "why", "what came of it")
    return PageTable((PageColumn("proposal", "count"), *map(PageColumn, names)), rows)


def _ladders(findings: Sequence[FindingLine]) -> Iterator[Block]:
    """The ladders of the problems on the path, each in the order in which its remedies are tried."""
    open_ones = {line["rule"]: line for line in findings if not line["superseded"] and line["severity"] != "note"}
    rows = tuple(
        (
            rule,
            rung["remedy"],
            rung["impact"],
            rung["effort"],
            rung["risk"],
            "by itself" if rung["by_itself"] else "a person",
            Phrase("taken", "faint") if rung["taken"] else "",
            _share(rung["expected"]) if rung["expected"] else "",
            rung["words"],
        )
        for rule, line in open_ones.items()
        for rung in line["ladder"]
    )
    if rows:
        rated = (PageColumn(name, "count") for name in ("impact", "effort", "risk"))
        told = map(PageColumn, ("decided", "taken", "reached the twin", "what it does"))
        yield PageTable((PageColumn("problem"), PageColumn("remedy"), *rated, *told), rows)
        yield Text(TWIN, "faint")


TWIN = (
    "Reached the twin: of the bench's faulty trainings in which this was tried, how many came up to their healthy twin "
    "with it; with the interval of 90 %. The bench's figures, not this training's."
)


def _share(gain: ExpectedGain) -> str:
    return f"{gain['reached']} of {gain['tried']} cases ({gain['low']:.0%} to {gain['high']:.0%})"


def _next(answer: DiagnosisAnswer) -> Iterator[Block]:
    following = answer["next"]
    if following is None:
        yield Text(answer["no_next"])
        return
    rows = tuple(
        (Phrase(line["path"], code=True), _value(line["before"]), _value(line["after"]), line["why"])
        for line in following["changes"]
    )
    yield PageTable(tuple(map(PageColumn, ("option", "was", "becomes", "why"))), rows)
    yield from (Text(note, "note") for note in [*_expected(following), *following["notes"]])
    yield Text(f"swarm diagnose {answer['session']} -o next.yaml\nswarm run next.yaml", code=True)


def _value(value: object) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _expected(following: NextRequest) -> Iterator[str]:
    """What the bench had from the remedy of a next request, as a sentence; nothing where it was never tried."""
    if gain := following["expected"]:
        yield f"In the bench of faults {following['remedy']} reached the healthy twin in {_share(gain)}."


def comments(answer: DiagnosisAnswer, following: NextRequest) -> Iterator[str]:
    """What the file of the next request says of itself, line by line."""
    yield f"The next request after session {answer['session']}, as `swarm diagnose` makes it."
    for line in answer["findings"]:
        if line["rule"] == following["rule"] and not line["superseded"]:
            yield f"{line['rule']} ({line['severity']}), steps {line['first']}..{line['last']}: {line['message']}"
    for option in following["changes"]:
        yield f"{option['path']}: {_value(option['before'])} -> {_value(option['after'])} ({option['why']})"
    yield from _expected(following)
    yield from following["notes"]


TONES: dict[str, Tone] = {"A": "good", "B": "good", "not comparable": "warn"}


def health_page(found: HealthDifference) -> Page:
    """Two sessions beside each other: who is better off in what."""
    problems: tuple[tuple[Content, ...], ...] = tuple(
        (pair["rule"], *(side or "-" for side in pair["severities"]), _better(pair["better"]))
        for pair in found["problems"]
    )
    figures: tuple[tuple[Content, ...], ...] = tuple(
        (
            pair["name"],
            *(f"{value:.6g}" if isinstance(value, float) else value or "-" for value in pair["values"]),
            _better(pair["better"], pair["why"]),
        )
        for pair in found["figures"]
    )

    def table(what: str, rows: tuple[tuple[Content, ...], ...]) -> PageTable:
        return PageTable(tuple(map(PageColumn, (what, "A", "B", "better"))), rows)

    sides = zip("AB", found["sessions"], found["states"], found["judged"], strict=True)
    head = key_figures(
        *((side, f"{session}, {state}" + ("" if judged else f": {NOT_SAID}")) for side, session, state, judged in sides)
    )
    nothing = Text("No rule finds a problem on the path of either.", "good")
    blocks = (
        head,
        PageSection("Problems on the path", (table("problem", problems) if problems else nothing,)),
        PageSection("Figures", (table("figure", figures),)),
    )
    return Page("The health of two sessions", f"A {found['sessions'][0]}, B {found['sessions'][1]}", blocks)


def _better(who: str, why: str = "") -> Phrase:
    return Phrase(f"{who}: {why}" if why else who, TONES.get(who, "faint"))
