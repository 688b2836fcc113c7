"""Pages about answers: a session as it stands, its state at an event, a verdict. Pure functions from the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.errors import count_of
from runtime.views.blocks import (
    Block,
    Content,
    KeyFigures,
    Page,
    PageColumn,
    PageSection,
    PageTable,
    Phrase,
    Text,
    Tone,
    key_figures,
)
from runtime.views.formatting import fork_of, in_words, levers_in_words, suggestion
from runtime.views.lineage import lineage_blocks
from runtime.views.plot import sketch, sketch_told
from runtime.views.resources import resources_text
from runtime.views.trials import train_command

if TYPE_CHECKING:
    from contracts.replies import (
        FrontTrialReply,
        ProblemReply,
        ProposalReply,
        RangeTestReply,
        ResourcesReply,
        SessionReply,
    )
    from runtime.replay.verdict import ReplayVerdict, Verdict

STATE_TONES: dict[str, Tone] = {"completed": "good", "failed": "bad", "cancelled": "warn", "paused": "warn"}
VERDICT_TONES: dict[str, Tone] = {"pass": "good", "fail": "bad"}


def state_phrase(name: str) -> Phrase:
    """The name of a session's state in the tone that it has."""
    return Phrase(name, STATE_TONES.get(name, "note"))


def verdict_phrase(word: str) -> Phrase:
    """A verdict in the tone that it has; nothing where there is none."""
    return Phrase(word.upper(), VERDICT_TONES.get(word, "warn"))


def session_page(summary: SessionReply, options: str = "") -> Page:
    """A session as it stands: what `swarm show` says, and what a command that ends with a session answers.

    `options` are those with which a command finds the same swarm.
    """
    total = f"/{summary['steps_total']}" if summary.get("steps_total") else ""
    best_step, trial, last = summary.get("best_step"), summary.get("best_trial"), summary.get("last")
    best = "" if best_step is None or not summary["metrics"] else f"  (best, at step {best_step})"
    best_trial = f"{trial['number']}, session {trial['session']}: {in_words(trial['parameters'])}" if trial else ""
    if trial and "spread" in trial:
        best_trial += f" ({trial['value']:.4g} ± {trial['spread']:.2g} over {count_of(trial.get('seeds', 1), 'seed')})"
    train = ""
    if trial and "data_path" in trial:
        train = train_command(summary["session"], "best", trial["data_path"], options)
    rows: list[tuple[str, Content]] = [
        ("session", summary["session"]),
        ("state", state_phrase(summary["state"])),
        ("waits", summary.get("waits") or ""),
        ("kind", f"{summary['kind']} {summary.get('name', '')}".rstrip()),
        ("fork of", fork_of(summary.get("fork"))),
        ("verdict", verdict_phrase(summary.get("verdict") or "")),
        (
            "step",
            f"{summary['step']}{total} (epoch {summary['epoch']}, {count_of(summary.get('segments', 1), 'segment')})",
        ),
        ("metrics", metrics_text(summary["metrics"]) + best),
        ("last", f"{metrics_text(last['metrics'])}  (at step {last['step']})" if last else ""),
        ("weights", summary["weights_digest"]),
        ("best trial", best_trial),
        ("train it in full", train),
        *_range_test(summary.get("range_test")),
        *((str(made["kind"]), artifact_text(made)) for made in summary["artifacts"]),
        *(("refused", _refusal(entry)) for entry in summary.get("refused", ())),
        *((f"intervention {entry['number']}", _intervention(entry)) for entry in summary.get("interventions", ())),
        *((f"proposal {entry['number']} waits", _proposal(entry)) for entry in summary.get("proposals", ())),
        *_resources(summary.get("resources")),
        ("sealed", summary.get("sealed")),
        ("owed", ", ".join(summary.get("owed", ()))),
        ("wall", f"{summary['wall_s']:.1f} s, {count_of(summary.get('events', 0), 'event')}"),
    ]
    title = str(summary.get("name") or summary["kind"])
    blocks: list[Block] = [
        key_figures(*rows),
        *front_table(summary.get("front", ())),
        *lineage_blocks(summary.get("lineage", ())),
    ]
    if problem := summary.get("problem"):
        blocks.append(problem_figures(problem))
    return Page(title, f"{summary['kind']} {summary['session']}", tuple(blocks))


def front_table(front: Sequence[FrontTrialReply]) -> Iterator[Block]:
    """The trials of a search than which no other is better in all its objectives, with their value of each."""
    if not front:
        return
    yield Text("No trial is better in all objectives than one of these:")
    metrics = list(front[0]["values"])
    score = [PageColumn("score", "number")] if front[0]["score"] is not None else []
    spread = [PageColumn("± over seeds")] if front[0]["spread"] else []
    rows = tuple(
        (
            trial["number"],
            *(trial["values"][metric] for metric in metrics),
            *([trial["score"]] if score else []),
            *([in_words(trial["spread"])] if spread else []),
            in_words(trial["parameters"]),
            Phrase(trial["session"], code=True),
        )
        for trial in front
    )
    figures = [*(PageColumn(metric, "number") for metric in metrics), *score, *spread]
    columns = (PageColumn("trial", "count"), *figures, PageColumn("parameters"), PageColumn("session", "code"))
    yield PageTable(columns, rows)


def _proposal(waiting: ProposalReply) -> str:
    about = f"{waiting['rule']}: {waiting['reason']}"
    return f"{about} (swarm approve or reject S {waiting['number']})"


def _resources(used: ResourcesReply | None) -> Iterator[tuple[str, Content]]:
    if used is not None:
        yield "resources", resources_text(used)
        yield from (("advice", advice) for advice in used["advice"])
        yield from (("advice taken", judged) for judged in used["advice_taken"])


def metrics_text(values: Mapping[str, float | None]) -> str:
    """Metrics in a row."""
    return "  ".join(f"{name}={value:.4g}" for name, value in values.items() if value is not None)


def problem_figures(problem: ProblemReply) -> KeyFigures:
    """Why a session did not complete, where it failed, and the cure."""
    about = (("at", problem.get("frame", "")), ("hint", problem["cure"]))
    return key_figures((problem["code"], Phrase(problem["message"], "bad")), *about)


def _range_test(tried: RangeTestReply | None) -> list[tuple[str, Content]]:
    if tried is None:
        return []
    rates, losses = tried["rates"], tried["losses"]
    span = f"losses at rates from {rates[0]:.4g} to {rates[-1]:.4g}" if rates else ""
    curve = f"{sketch(losses)}  {span}" + (f", {told}" if (told := sketch_told(len(losses))) else "")
    return [
        ("learning rate", suggestion(tried["suggestion"], tried["steepest"], tried["diverged_at"])),
        ("curve", curve),
    ]


def _refusal(refusal: Mapping[str, object]) -> str:
    form = f"{refusal['format']}" + (f"/{refusal['quantize']}" if refusal["quantize"] else "")
    return f"{form}: {refusal['message']} {refusal['cure']}".rstrip()


def _intervention(applied: Mapping[str, Any]) -> str:
    return f"by {applied['by']}, from step {applied['step']}: {levers_in_words(applied['changes'])}"


def artifact_text(made: Mapping[str, object]) -> str:
    """One checkpoint or exported file as one line: what it is, its place and its size."""
    if made["kind"] == "checkpoint":
        return f"step {made['step']} (blob {str(made['digest'])[:16]}, {made['bytes']} bytes)"
    form = f"{made['format']}" + (f"/{made['quantize']}" if made.get("quantize") else "")
    return f"{form} {made.get('path') or made['digest']} ({made['bytes']} bytes)"


def replay_page(summary: SessionReply, place: str, event: str, weights: Sequence[str] = ()) -> Page:
    """The state at a point, the event that brought it there, and what was written of the weights."""
    page = session_page(summary)
    head = (Text(f"Session {summary['session']}, {place}: {event}"),)
    tail = (key_figures(("weights", weights[0]), *(("", line) for line in weights[1:])),) if weights else ()
    return Page(page.title, page.lead, (*head, *page.blocks, *tail))


SHARES = ("0.01", "0.1", "0.5")
"""Shares of wrong spans of which a page tells; `--json` has more."""
DIVERGENCES = 10
"""Divergences that a page lists."""


def verdict_page(verdict: Verdict, audit: str = "") -> Page:
    """A verdict with what was looked at, what was not, and what does not hold; `audit` is the session that found it."""
    signatures, roots = count_of(verdict.signatures, "signature"), count_of(verdict.checkpoints, "signed root")
    rows: list[tuple[str, Content]] = [
        ("session", verdict.session),
        ("verdict", verdict_phrase(verdict.verdict)),
        ("events", f"{verdict.events} in {count_of(len(verdict.lane_heads), 'lane')}, {signatures}"),
        ("ledger", f"{roots} computed again, over {count_of(verdict.signed_events, 'event')}"),
        ("sealed", verdict.sealed or "not yet"),
        ("blobs", f"{verdict.blobs} compared with their digests"),
        ("root", verdict.root),
        ("anchors", f"{count_of(verdict.anchors, 'note')} from elsewhere" if verdict.anchors else ""),
        ("decisions", f"{verdict.decisions} compared with what was signed" if verdict.decisions else ""),
        *span_rows(verdict),
        *(("unchecked", what) for what in verdict.unchecked),
    ]
    blocks: list[Block] = [key_figures(*rows)]
    if found := verdict.divergences[:DIVERGENCES]:
        columns = (PageColumn("what"), PageColumn("event", "count"), PageColumn("message"))
        table = tuple((Phrase(each.what, "bad"), each.position or None, each.message) for each in found)
        more = len(verdict.divergences) - len(found)
        left = f"{more:,} more divergences are left out here; --json says how many there are." if more else ""
        blocks.append(PageSection("What does not hold", (PageTable(columns, table, left),)))
    if audit:
        blocks.append(Text(f"The audit is session {audit}."))
    lead = f"{verdict.mode} audit of {verdict.session or verdict.bundle}"
    return Page(f"Audit: {verdict.verdict}", lead, tuple(blocks))


def span_rows(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What a page says of the spans; nothing when none were asked for."""
    from runtime.replay.verdict import ReplayVerdict

    if verdict.mode == "log" or not isinstance(verdict, ReplayVerdict):
        return
    steps = count_of(verdict.steps_checked, "step")
    yield "spans", f"{verdict.spans_checked} of {verdict.spans_total} computed again, {steps}"
    if verdict.spans_resumed:
        told = f"{verdict.spans_resumed} of them in an earlier run of this audit, which was interrupted"
        yield "resumed", told
    if verdict.exports_checked:
        yield "exports", f"{verdict.exports_checked} made again, byte for byte compared"
    if verdict.detection:
        yield from _chances(verdict)
    if verdict.mode == "bisect" and verdict.verdict == "pass":
        yield "located", "no step differs: everything that was computed again came out as recorded"
    if verdict.located:
        yield from (("located", sentence) for sentence in verdict.located.sentences)


def _chances(verdict: ReplayVerdict) -> Iterator[tuple[str, str]]:
    yield "seed", str(verdict.seed)
    if not any(verdict.detection.values()):
        yield "chance", "nothing was computed again, so no wrong span would be found"
        return
    for rate in SHARES:
        if rate in verdict.detection:
            chance = f"one of these would be with a chance of {verdict.detection[rate]:.1%}"
            yield "chance", f"if {float(rate):.0%} of all spans were wrong, {chance}"
    chance = f"it would be one of these with a chance of {verdict.detection['one']:.1%}"
    yield "chance", f"if a single span were wrong, {chance}"
