"""Two sessions side by side as a page."""

from collections.abc import Iterable

from runtime.log.session_log import SessionLog
from runtime.replay.difference import (
    DecisionsDifference,
    EvaluationsDifference,
    FingerprintDifference,
    Pairs,
    SessionsDifference,
    WindowsDifference,
)
from runtime.views import curves
from runtime.views.answer_pages import state_phrase
from runtime.views.blocks import Block, Content, Curves, Page, PageColumn, PageTable, Series, key_figures
from runtime.views.formatting import fork_of, levers_in_words

ABSENT = "-"


def diff_page(found: SessionsDifference, logs: tuple[SessionLog, SessionLog] | None = None) -> Page:
    """Two sessions side by side; with their logs the curves of their losses and control metrics as well."""
    rows: list[tuple[Content, ...]] = [
        ("session", *found["sessions"], ""),
        ("state", *map(state_phrase, found["states"]), ""),
    ]
    sections: dict[str, Pairs] = {
        "request": found["request"],
        "resolved": found["resolved"],
        "environment": found["environment"],
        "code": found["code"],
        "data": found["data"],
    }
    for section, differing in sections.items():
        rows += [(f"{section}.{path}", *map(_short, values), "") for path, values in differing.items()]
    for name, (one, other) in found["metrics"].items():
        change = f"{other - one:+.4g}" if one is not None and other is not None else ""
        rows.append((name, *(ABSENT if value is None else f"{value:.6g}" for value in (one, other)), change))
    rows.append(("weights", *map(_short, found["weights"]), ""))
    forks = ((side, fork) for side, fork in zip("AB", found["forks"], strict=True) if fork)
    told = {"code": "code of workload files"}
    alike = ", ".join(told.get(section, section) for section, differing in sections.items() if not differing)
    sentences = key_figures(
        *((f"{side} is", f"a fork of {fork_of(fork)}") for side, fork in forks),
        ("the same", alike),
        ("fingerprint", _fingerprint_told(found["fingerprint"])),
        ("decisions", _decisions_told(found["decisions"])),
        ("windows", _windows_told(found["windows"])),
        ("evaluations", _evaluations_told(found["evaluations"])),
    )
    table = PageTable((PageColumn(""), PageColumn("A"), PageColumn("B"), PageColumn("")), tuple(rows))
    blocks: list[Block] = [table, sentences]
    if logs is not None:
        blocks += _charts(*logs)
    return Page("Two sessions side by side", f"A {found['sessions'][0]}, B {found['sessions'][1]}", tuple(blocks))


def _charts(one: SessionLog, other: SessionLog) -> Iterable[Block]:
    """What both recorded of the loss and of their control metrics, in one picture each."""
    tables = [(side, curves.rows(log.state, log.facts)) for side, log in (("A", one), ("B", other))]
    best = [log.state.training.best for log in (one, other)]
    names = dict.fromkeys(["loss", *(seen.metric for seen in best if seen)])
    for name in names:
        lines = tuple(Series(f"{name} of {side}", *curves.series(rows, name)) for side, rows in tables)
        if any(line.y for line in lines):
            yield Curves(name, lines)


def _fingerprint_told(compared: FingerprintDifference) -> str:
    one, other = compared["digests"]
    if one == other:
        return "the same"
    if None in (one, other):
        return "only one was claimed by a machine"
    return f"differs in {', '.join(compared['families']) or 'no family: torch, threads or device'}"


def _decisions_told(compared: DecisionsDifference) -> str:
    if compared["same"]:
        return f"the same {len(compared['applied'][0])}" if compared["applied"][0] else "none"
    sides = [
        "; ".join(f"at step {one['step']} {levers_in_words(one['changes'])}, by {one['by']}" for one in applied)
        or "none"
        for applied in compared["applied"]
    ]
    return f"A: {sides[0]}. B: {sides[1]}."


def _windows_told(compared: WindowsDifference) -> str:
    one, other = compared["reached"]
    place = compared["parted"]
    if place is None:
        beyond = "" if one == other else f"; A goes to step {one}, B to step {other}"
        return f"{compared['same']} the same, none differs{beyond}"
    what = place["field"] + (f", from step {place['step']} on" if place["step"] else "")
    return f"{compared['same']} the same, then they part in steps {place['first'] + 1}..{place['last']}: {what}"


def _evaluations_told(compared: EvaluationsDifference) -> str:
    place = compared["parted"]
    if place is None:
        return f"{compared['same']} the same, none differs"
    return f"{compared['same']} the same, then they part at step {place['step']}: {', '.join(place['values'])}"


def _short(value: object) -> str:
    if value is None:
        return ABSENT
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:16]}...{text[-16:]}"
