"""The page about one session: how it went at a glance, then everything that it left. A pure function of its facts."""

import math
from collections.abc import Iterator, Sequence

from contracts.errors import count_of
from contracts.exporter import ExportingState
from contracts.hyperparameter_specialist import SearchState
from contracts.request.reading import flat
from contracts.session import Checkpoint, SessionState
from contracts.trainer import AuditCompleted
from runtime.diagnosis.health import AdviceLine, advice_lines
from runtime.log import retention
from runtime.views import curves, view
from runtime.views.answer_pages import front_table, metrics_text, problem_figures, state_phrase, verdict_phrase
from runtime.views.blocks import (
    Block,
    Content,
    Curves,
    HeatMap,
    KeyFigure,
    KeyFigures,
    Mark,
    Page,
    PageColumn,
    PageSection,
    PageTable,
    Phrase,
    Pictures,
    Series,
    Text,
    Tone,
    key_figures,
)
from runtime.views.checkpoints import epoch_at, optimizer_figures, optimizer_text, recorded_metrics, roles
from runtime.views.formatting import finite, fork_of, in_words, levers_in_words, number, short, size, suggestion
from runtime.views.lineage import lineage, lineage_blocks
from runtime.views.resources import resource_blocks
from runtime.views.search_page import search_blocks
from runtime.views.sentences import sentence
from runtime.views.session_record import MOST_LAYERS, MOST_TOLD, EventSentence, SessionRecord
from runtime.views.trials import trials_answer, trials_table

NO_DECISION = "Nothing was diagnosed and nobody intervened."

EVALUATIONS = 20
"""Evaluations that are listed: the last ones, and the best."""
RATES = 25
"""Rates of a range test that are listed, of as many as were tried."""
CHARTS = 8
"""Metrics beyond shares and losses that have a chart of their own."""
CLASSES = 32
"""Classes of a confusion matrix that is drawn."""
VALUES = 300
"""Values of a request that are listed."""

LOSSES = ("loss", "val_loss", "test_loss")
OTHER = ("step", "epoch", "segment", "loss_last", "learning_rate", "gradient_norm")

SEVERITY_TONES: dict[str, Tone] = {"critical": "bad", "warning": "warn"}


def glance_page(session: SessionState, record: SessionRecord) -> Page:
    """What a notebook shows of a session: its state and best figures, and its curves."""
    lead = f"{session.kind.name} {session.id}, requested {session.requested_at[:19]}Z"
    return Page(
        str(session.request.get("name", "") or session.kind.name), lead, (*_overview(session), *charts(session, record))
    )


def report_page(session: SessionState, record: SessionRecord, root: str = "", bundle: str = "") -> Page:
    """The whole report; `root` is the fingerprint of the root key that was pinned when the log was admitted.

    `bundle` names the file that the session was read from, if it was one.
    """
    name = session.request.get("name", "") or session.kind.name
    lead = f"{session.kind.name} {session.id}, requested {session.requested_at[:19]}Z"
    calm = session.training.claim and not session.training.diagnoses
    undecided = [Text(NO_DECISION, "note")] if calm else []
    sections: list[tuple[str, Sequence[Block]]] = [
        ("Loss and metrics", charts(session, record)),
        ("Timeline", [record.timeline] if record.timeline else []),
        ("Evaluations", _evaluations(session)),
        ("Diagnoses", _diagnoses(session)),
        ("What the advisor said", [advice_table(advice)] if (advice := [*advice_lines(session)]) else []),
        ("Decisions", _told(record.decisions, record.decisions_total) or undecided),
        ("Trouble", _told(record.trouble, record.trouble_total)),
        ("Range test", _range_test(session)),
        ("Front", [*front_table(view.front(session))]),
        ("Lineage", [*lineage_blocks(lineage(session))]),
        ("Trials", _trials(session, record, bundle)),
        ("Checkpoints", _checkpoints(session)),
        ("Artifacts", _artifacts(session)),
        ("Where the time of training went", _seconds(record)),
        ("Resources", resource_blocks(session)),
        ("Layers", _layers(record)),
        ("Data", _data(session)),
        ("Request", _request(session)),
        ("Provenance", _provenance(session, root)),
        ("How to check this", _check_bundle(bundle, session) if bundle else _check(session)),
    ]
    parts = [PageSection(title, tuple(blocks), folded=title in FOLDED) for title, blocks in sections if blocks]
    return Page(str(name), lead, (*_overview(session), *parts))


FOLDED = ("Request", "Layers")


def _overview(session: SessionState) -> Iterator[Block]:
    """What a reader is to see at once."""
    best, problem, total = session.training.best, view.problem(session), session.own.total_steps
    figures = [KeyFigure("state", state_phrase(session.state))]
    if isinstance(session.outcome, AuditCompleted):
        figures.append(KeyFigure("verdict", verdict_phrase(session.outcome.verdict)))
    for name, value in list(session.metrics.items())[:6]:
        note = f"best, at step {best.step}" if best and name in best.values else ""
        figures.append(KeyFigure(name, value, note=note, kind="number"))
    if total:
        told = f"epoch {session.training.evaluations[-1].epoch}" if session.training.evaluations else ""
        figures.append(KeyFigure("steps", f"{session.step} of {total}", note=told))
    if len(session.training.segments) > 1:
        figures.append(
            KeyFigure("interventions", len(session.training.applied), note="changes of the plan", kind="count")
        )
    figures.append(KeyFigure("time", f"{view.wall_seconds(session):.1f} s", note=count_of(session.events, "event")))
    sealed = Phrase("sealed", "good") if session.sealed else Phrase("not sealed yet", "warn")
    figures.append(KeyFigure("log", sealed))
    yield KeyFigures(tuple(figures), large=True)
    if problem:
        yield problem_figures(problem)
    trial = view.best_trial(session)
    told = f"{trial['number']}: {in_words(trial['parameters'])}, session {trial['session']}" if trial else ""
    rows: tuple[tuple[str, Content], ...] = (
        ("fork of", fork_of(view.fork(session))),
        ("best trial", told),
        ("waits", view.waits(session)),
    )
    if any(value for _, value in rows):
        yield key_figures(*rows)


def charts(session: SessionState, record: SessionRecord) -> list[Block]:
    """Every curve of a session over its steps, with interventions, restarts and the best step marked."""
    marks = _marks(session, record)
    names = list(dict.fromkeys(name for row in record.rows for name in row))
    lines = {name: Series(name, *curves.series(record.rows, name)) for name in names if name not in OTHER[:3]}
    lines = {name: line for name, line in lines.items() if any(map(math.isfinite, line.y))}
    losses = [lines[name] for name in LOSSES if name in lines]
    metrics = [line for name, line in lines.items() if name not in (*LOSSES, *OTHER)]
    shares = [line for line in metrics if all(0 <= value <= 1 for value in line.y if math.isfinite(value))]
    rest = [line for line in metrics if line not in shares]
    blocks: list[Block] = []
    if losses:
        blocks.append(Curves("Loss", tuple(losses), marks=marks, file="loss"))
    if shares:
        blocks.append(Curves("Metrics", tuple(shares), marks=marks, y_scale="linear", file="metrics"))
    blocks += [Curves(line.name, (line,), marks=marks, file=f"metric_{at}") for at, line in enumerate(rest[:CHARTS], 1)]
    if len(rest) > CHARTS:
        blocks.append(Text(f"{len(rest) - CHARTS} more metrics are in metrics.json.", "note"))
    if "learning_rate" in lines:
        rate = lines["learning_rate"]
        blocks.append(Curves("Learning rate", (rate,), marks=marks, y_scale="linear", file="learning_rate"))
    if "gradient_norm" in lines:
        norm = lines["gradient_norm"]
        blocks.append(Curves("Gradient norm", (norm,), marks=marks, y_scale="log", file="gradient_norm"))
    return blocks


def _marks(session: SessionState, record: SessionRecord) -> tuple[Mark, ...]:
    decided = {applied.segment: (applied.by, applied.changes) for _, applied in session.training.applied}
    marks = []
    for segment in session.training.segments[1:]:
        by, changes = decided.get(segment.number, ("", segment.changes))
        marks.append(
            Mark(finite(segment.begins), f"segment {segment.number}: {levers_in_words(changes)}, by {by}", "warn")
        )
    marks += [Mark(finite(step), f"attempt {claim} goes on from here") for claim, step in record.restarts]
    if session.training.best:
        marks.append(Mark(finite(session.training.best.step), "the best evaluation", "good"))
    return tuple(sorted(marks, key=lambda mark: mark.x))


def _evaluations(session: SessionState) -> list[Block]:
    training = session.training
    total, latest = len(training.evaluations), list(training.evaluations[-EVALUATIONS:])
    listed = [seen for seen in training.evaluations if seen is training.best] if training.best not in latest else []
    by_step = {seen.step: seen for seen in (*listed, *latest)}
    names = list(dict.fromkeys(name for seen in by_step.values() for name in seen.values))[:12]
    rows = tuple(
        (
            Phrase(f"{step} (best)", "good") if seen is session.training.best else step,
            seen.epoch,
            *(seen.values.get(name) for name in names),
        )
        for step, seen in sorted(by_step.items())
    )
    if not rows:
        return []
    columns = (PageColumn("step", "count"), PageColumn("epoch", "count"), *(PageColumn(n, "number") for n in names))
    left = f"The last {EVALUATIONS} of {total:,} evaluations, and the best." if total > len(rows) else ""
    return [PageTable(columns, rows, left), *_judged(session)]


def _judged(session: SessionState) -> Iterator[Block]:
    """How the best checkpoint does by class, as the validator found it."""
    kept = session.training.checkpoint("best") or session.training.checkpoint("last")
    if not kept or not kept.validated:
        return
    details = kept.validated.details
    names = tuple(score.label for score in details.per_class)
    matrix = details.confusion
    judged = count_of(kept.validated.rows, f"{kept.validated.split} row")
    where = f"step {kept.written.step}, {judged}"
    if 0 < len(matrix) <= CLASSES and all(len(line) == len(matrix) for line in matrix):
        values = tuple(tuple(float(cell) for cell in line) for line in matrix)
        title = f"What was taken for what ({where})"
        yield Pictures((HeatMap(title, names, names, values, "the class", "the answer", logarithmic=len(matrix) > 2),))
    if details.per_class:
        rows = tuple((one.label, one.rows, one.precision, one.recall, one.f1) for one in details.per_class)
        figures = ("rows", "precision", "recall", "f1")
        yield PageTable((PageColumn("class"), *(PageColumn(name, "number") for name in figures)), rows)


def _diagnoses(session: SessionState) -> list[Block]:
    found = [seen for _, seen in session.training.diagnoses]
    rows = tuple(
        (
            Phrase(seen.severity, SEVERITY_TONES.get(seen.severity, "")),
            f"{seen.first}..{seen.last}",
            seen.rule,
            seen.message,
            seen.cure,
        )
        for seen in found
    )
    columns = tuple(map(PageColumn, ("severity", "steps", "rule", "what was found", "cure")))
    return [PageTable(columns, rows)] if rows else []


def advice_table(advice: Sequence[AdviceLine]) -> PageTable:
    """Every question to the advisor, what came of it, and what it cost."""
    rows = tuple(
        (
            line["rule"],
            line["question"],
            line["action"] + (f" {line['value']:g}" if line["value"] is not None else ""),
            line["confidence"] or "",
            line["outcome"] + (f" as {line['proposal']}" if line["proposal"] else ""),
            line["because"],
            line["rung"],
            f"{line['calls']} calls, {line['tokens']} tokens, {line['seconds']:.1f} s",
            line["model"],
        )
        for line in advice
    )
    names = ("problem", "about", "chose", "sure", "what came of it", "why", "read as", "cost", "model")
    return PageTable(tuple(map(PageColumn, names)), rows)


def _told(told: Sequence[EventSentence], total: int) -> list[Block]:
    rows = tuple((Phrase(seen.clock, "faint"), seen.lane, seen.text) for seen in told)
    left = f"The first {MOST_TOLD} of {total:,}; all: swarm events S --plain" if total > len(rows) else ""
    return [PageTable(tuple(map(PageColumn, ("time", "by", "what"))), rows, left)] if rows else []


def _range_test(session: SessionState) -> list[Block]:
    """The suggestion, the curve, and some of the rates that were tried: every so many, with the last."""
    found = SearchState.of(session).suggested
    if found is None:
        return []
    every = math.ceil(len(found.rates) / RATES) or 1
    tried = list(zip(found.rates, found.losses, strict=False))
    rows = tuple((short(rate), loss if math.isfinite(loss) else "not finite") for rate, loss in tried[::every])
    left = f"Every {every}th of {len(tried):,} rates." if every > 1 else ""
    return [
        Text(f"Suggests a learning rate of {suggestion(found.suggestion, found.steepest, found.diverged_at)}."),
        Curves(
            "Loss at each learning rate that was tried",
            (Series("loss", found.rates, found.losses),),
            x_name="learning rate",
            marks=(Mark(found.suggestion, "suggestion", "good"),),
            y_scale="linear",
            x_scale="log",
            cut=True,
            file="range_test",
        ),
        PageTable((PageColumn("learning rate"), PageColumn("loss", "number")), rows, left),
    ]


def _trials(session: SessionState, record: SessionRecord, bundle: str) -> list[Block]:
    if not record.trials.rows:
        return []
    answer = trials_answer(record.trials, session, bundle)
    return [*search_blocks(record.trials, answer), trials_table(answer["trials"], answer["best"])]


def _checkpoints(session: SessionState) -> list[Block]:
    kept_as = roles(session)
    kept: dict[retention.Place, Checkpoint] = {
        retention.place(each): each for each in session.training.path_checkpoints() if each.usable
    }
    recorded = recorded_metrics(session)
    rows = tuple(
        (
            each.written.step,
            epoch_at(session, each.written.step),
            ", ".join(kept_as.get(place, [])),
            metrics_text(recorded[place]),
            each.written.bytes,
            each.written.blob,
        )
        for place, each in kept.items()
    )
    columns = (
        PageColumn("step", "count"),
        PageColumn("epoch", "number"),
        PageColumn("kept as"),
        PageColumn("metrics"),
        PageColumn("size", "bytes"),
        PageColumn("blob", "code"),
    )
    optimizer = optimizer_text(optimizer_figures(session))
    return [PageTable(columns, rows), key_figures(("optimizer", optimizer))] if rows else []


def _artifacts(session: SessionState) -> list[Block]:
    rows = []
    for _, made in ExportingState.of(session).exports:
        form = made.format + (f"/{made.quantize}" if made.quantize else "")
        parity = (
            f"{number(made.parity['max_abs']):.3g} over {count_of(made.rows_compared, 'row')}"
            if "max_abs" in made.parity
            else ""
        )
        rows.append((form, f"exports/{made.filename}", made.bytes, parity, made.blob))
    columns = (
        PageColumn("format"),
        PageColumn("file"),
        PageColumn("size", "bytes"),
        PageColumn("largest difference"),
        PageColumn("blob", "code"),
    )
    return [PageTable(columns, tuple(rows))] if rows else []


def _seconds(record: SessionRecord) -> list[Block]:
    total = sum(spent for _, spent in record.seconds)
    rows = tuple((name, spent, spent / total) for name, spent in record.seconds if total)
    if not rows:
        return []
    table = PageTable((PageColumn("in"), PageColumn("time", "seconds"), PageColumn("share", "share")), rows)
    speed = [Text(f"{record.rows_per_second:,.0f} rows per second of training.")] if record.rows_per_second else []
    return [table, *speed]


def _layers(record: SessionRecord) -> list[Block]:
    names = list(dict.fromkeys(name for window in record.layers for name in window.gradients))
    if not names or len(record.layers) < 2:
        return []
    shown = names[:MOST_LAYERS]
    values = tuple(tuple(window.gradients.get(name) for window in record.layers) for name in shown)
    steps = tuple(str(window.step) for window in record.layers)
    notes = [f"One of every {record.every:,} windows is shown." if record.every > 1 else ""]
    notes.append(f"At most {MOST_LAYERS} layers are shown." if len(names) >= MOST_LAYERS else "")
    title = "Norm of each layer's gradient at the last step of a window"
    left = " ".join(note for note in notes if note)
    return [Pictures((HeatMap(title, tuple(shown), steps, values, "the layer", "the step", left, logarithmic=True),))]


def _data(session: SessionState) -> list[Block]:
    ready = session.training.dataset
    if ready is None:
        return []
    splits = ", ".join(f"{rows} {name}" for name, rows in ready.splits.items())
    findings = (
        (f"{finding.severity}: {finding.kind}", f"{finding.count} ({', '.join(finding.where[:3])})")
        for finding in ready.findings
    )
    cache = "hit: prepared for an earlier session" if ready.reused else "none: prepared for this session"
    about = (("source", ready.source), ("rows", f"{ready.rows} ({splits})"), ("size", size(ready.bytes)))
    rows = (*about, ("cache", cache), *findings)
    return [key_figures(*rows)]


def _request(session: SessionState) -> list[Block]:
    values = [(name, value) for name, value in flat(session.request).items() if value is not None]
    rows = tuple((name, str(value)) for name, value in values[:VALUES])
    left = f"The first {VALUES} of {len(values):,} values." if len(values) > VALUES else ""
    return [PageTable((PageColumn("option", "code"), PageColumn("value")), rows, left)] if rows else []


def _provenance(session: SessionState, root: str) -> list[Block]:
    claim, genesis = session.training.claim, session.genesis
    environment = ", ".join(f"{name} {value}" for name, value in claim.environment.items() if value) if claim else ""
    rows: list[tuple[str, Content]] = [
        ("sealed root", Phrase(session.sealed.root, code=True) if session.sealed else "not sealed yet"),
        ("root key", Phrase(root, code=True) if root else Phrase("not pinned: believed as the log names it", "warn")),
        ("keyring at the request", Phrase(genesis.keyring, code=True) if genesis else ""),
        ("asked by", genesis.asked_by if genesis else ""),
        ("rules of admission", genesis.rules if genesis else None),
        ("data root", Phrase(session.training.dataset.root, code=True) if session.training.dataset else ""),
        ("weights", Phrase(session.weights_digest or "", code=True)),
    ]
    if claim:
        rows += [
            ("trained by", f"{claim.worker} (attempt {claim.epoch}), {environment}"),
            ("fingerprint", Phrase(claim.fingerprint, code=True)),
            ("engine bits", claim.engine_bits),
            *((f"source {name}", Phrase(digest, code=True)) for name, digest in claim.sources.items()),
        ]
    if session.training.resources:
        rows.append(("resources", sentence(session.training.resources)))
    return [key_figures(*rows)]


def _check_bundle(bundle: str, session: SessionState) -> list[Block]:
    lines = [
        f"swarm audit {bundle} --root FP      every event signed, chained and in the sealed tree, by keys of that root"
    ]
    if session.training.claim:
        lines.append(
            f"swarm audit {bundle} --root FP --mode full      computed again, if it was bundled with --dataset"
        )
    where = "Where the bundle is; FP is the root key's fingerprint, which the owner of the swarm tells (`swarm keys`):"
    return [Text(where), Text("\n".join(lines), code=True)]


def _check(session: SessionState) -> list[Block]:
    lines = [
        f"swarm audit {session.id}      every event signed, chained and in the sealed tree",
        f"swarm replay {session.id}     the state at any event, folded from the log",
    ]
    if session.training.claim:
        lines.append(f"swarm audit {session.id} --mode full      computed again, every window compared bit for bit")
        lines.append(f"swarm fork {session.id} --at 0      trained again, for the same weights on the same fingerprint")
    where = "Where the folder .swarm of this session is, or anywhere with --home and that folder:"
    return [Text(where), Text("\n".join(lines), code=True)]
