"""What an intervention was worth: two forks beside each other, with it and without, as an answer and as a page."""

import math
from collections.abc import Iterator, Mapping, Sequence

from typing_extensions import TypedDict

from contracts.diagnostician import InterventionProven
from contracts.errors import count_of
from contracts.replies import SessionReply
from runtime.views.answer_pages import state_phrase
from runtime.views.blocks import (
    Block,
    Content,
    Curves,
    Mark,
    Page,
    PageColumn,
    PageTable,
    Phrase,
    Series,
    Tone,
    key_figures,
)
from runtime.views.formatting import finite

MOST_ROWS = 24
"""Steps of both curves that are listed."""
TONES: dict[str, Tone] = {"better": "good", "worse": "bad"}

ProofPoint = TypedDict("ProofPoint", {"step": int, "with": float | str | None, "without": float | str | None})
"""The control metric of both forks at one step; a word where it is no finite number."""


class ProofAnswer(TypedDict):
    """What a proof shows: both forks, their metrics and curves, the verdict, and what of the parent came out again."""

    session: str
    parent: str
    intervention: str
    step: int
    with_it: str
    without_it: str
    metric: str
    with_value: float | None
    without_value: float | None
    verdict: str
    parted: int | None
    reproduced: int
    superseded: int
    differing: int
    seeds: int
    effect: float | None
    low: float | None
    high: float | None
    states: list[str]
    weights: list[str | None]
    metrics: dict[str, list[float | None]]
    curves: list[ProofPoint]


def proof_answer(
    session: str,
    parent: str,
    proven: InterventionProven,
    sides: Sequence[SessionReply],
    curves: Sequence[Mapping[int, float]],
) -> ProofAnswer:
    """Both sides of a proof beside each other, the one with the intervention first."""

    def finite(value: float | None) -> float | str | None:
        return value if value is None or math.isfinite(value) else str(value)

    names = dict.fromkeys(name for side in sides for name in side["metrics"])
    steps = sorted({step for curve in curves for step in curve})
    with_it, without_it = curves
    return {
        "session": session,
        "parent": parent,
        "intervention": proven.intervention,
        "step": proven.step,
        "with_it": proven.with_it,
        "without_it": proven.without_it,
        "metric": proven.metric,
        "with_value": proven.with_value,
        "without_value": proven.without_value,
        "verdict": proven.verdict,
        "parted": proven.parted,
        "reproduced": proven.reproduced,
        "superseded": proven.superseded,
        "differing": proven.differing,
        "seeds": proven.seeds,
        "effect": proven.effect,
        "low": proven.low,
        "high": proven.high,
        "states": [side["state"] for side in sides],
        "weights": [side["weights_digest"] for side in sides],
        "metrics": {name: [side["metrics"].get(name) for side in sides] for name in names},
        "curves": [
            {"step": step, "with": finite(with_it.get(step)), "without": finite(without_it.get(step))} for step in steps
        ],
    }


def proof_page(proof: ProofAnswer) -> Page:
    """A proof as a page: the verdict, both forks, and their curves."""
    reproduced = f"{count_of(proof['reproduced'], 'window')} that the parent recorded came out again"
    if proof["superseded"]:
        reproduced += f", {proof['superseded']} of them superseded ones, without the intervention"
    differs = count_of(proof["differing"], "window DIFFERS", "windows DIFFER")
    head = key_figures(
        ("proof", proof["session"]),
        ("of", f"the intervention in {proof['parent']} that took effect at step {proof['step']}"),
        ("verdict", Phrase(f"{proof['verdict'].upper()} by {proof['metric']}", TONES.get(proof["verdict"], "warn"))),
        ("effect", _effect(proof)),
        ("they part", f"in step {proof['parted']}" if proof["parted"] else "nowhere"),
        ("reproduced", reproduced),
        ("differing", Phrase(differs, "bad") if proof["differing"] else ""),
    )
    sides: list[tuple[Content, ...]] = [
        ("session", Phrase(proof["with_it"], code=True), Phrase(proof["without_it"], code=True)),
        ("state", *map(state_phrase, proof["states"])),
        (f"best {proof['metric']}", _figure(proof["with_value"]), _figure(proof["without_value"])),
        *((name, *map(_figure, both)) for name, both in proof["metrics"].items()),
        ("weights", *(Phrase((digest or "-")[:16], code=True) for digest in proof["weights"])),
    ]
    columns = (PageColumn(""), PageColumn("with"), PageColumn("without"))
    blocks = (head, PageTable(columns, tuple(sides)), *_curves(proof))
    return Page(f"What the intervention at step {proof['step']} was worth", f"proof {proof['session']}", blocks)


def _effect(proof: ProofAnswer) -> str:
    """The mean gain over seeds, and where it lies with a confidence of 90 %; empty for one seed."""
    if proof["effect"] is None or proof["low"] is None or proof["high"] is None:
        return ""
    bounds = f"{proof['low']:.4g} to {proof['high']:.4g}"
    return f"a gain of {proof['effect']:.4g} ({bounds}, 90 %) over {proof['seeds']} seeds"


def _curves(proof: ProofAnswer) -> Iterator[Block]:
    points = proof["curves"]
    if not points:
        return
    steps = [finite(point["step"]) for point in points]
    lines = (
        Series("with", steps, [_number(point["with"]) for point in points]),
        Series("without", steps, [_number(point["without"]) for point in points]),
    )
    marks = (Mark(finite(proof["parted"]), "they part", "warn"),) if proof["parted"] else ()
    title, told, left = f"{proof['metric']} by step", points, ""
    if len(points) > MOST_ROWS:
        # So many that a page holds them, evenly spaced, the last one included.
        told = [points[round(at * (len(points) - 1) / (MOST_ROWS - 1))] for at in range(MOST_ROWS)]
        left = f"{MOST_ROWS} of {len(points):,} steps, evenly spaced."
    columns = (PageColumn(title, "count"), PageColumn("with", "number"), PageColumn("without", "number"))
    rows = tuple((point["step"], _figure(point["with"]), _figure(point["without"])) for point in told)
    yield Curves(title, lines, marks=marks)
    yield PageTable(columns, rows, left)


def _number(value: float | str | None) -> float:
    """The value as a point of a curve; what is none, or not finite, is a gap."""
    return math.nan if value is None else float(value)


def _figure(value: float | str | None) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
