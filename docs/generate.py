"""Writes docs/reference/ from the code: requests, events, commands, the command line, errors, the Python API.

`python docs/generate.py` writes the pages; tests/test_reference.py fails when they are not what it would write.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from typing_extensions import is_typeddict

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "docs" / "reference"
NOTE = "Made from the code by `python docs/generate.py`, and compared with it by a test. Do not edit it."

Schema = Mapping[str, Any]


# ---------------------------------------------------------------- JSON Schema as words


def name_of(schema: Schema) -> str:
    """The name of the definition that a schema refers to; empty when it refers to none."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def values_of(schema: Schema) -> str:
    """Which values a schema takes, in words."""
    if name := name_of(schema):
        return f"[{name}](#{name.lower().replace('.', '')})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if some := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(map(values_of, some)))
    match schema.get("type"):
        case "array":
            if "prefixItems" in schema:
                return f"list of {' and '.join(map(values_of, schema['prefixItems']))}"
            inner = values_of(schema.get("items", {}))
            return f"list{between(schema, 'minItems', 'maxItems')} of {inner}"
        case "object":
            inner = schema.get("additionalProperties")
            return f"mapping to {values_of(inner)}" if isinstance(inner, Mapping) and inner else "mapping"
        case "integer":
            return f"whole number{bounds(schema)}"
        case "number":
            return f"number{bounds(schema)}"
        case "string":
            pattern = f" like `{schema['pattern']}`" if "pattern" in schema else ""
            return f"text{between(schema, 'minLength', 'maxLength')}{pattern}"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
    return "anything"


def bounds(schema: Schema) -> str:
    """From where to where a number may be."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    words = [f"from {figure(low)}"] if low is not None else [f"above {figure(above)}"] if above is not None else []
    words += [f"to {figure(high)}"] if high is not None else [f"below {figure(below)}"] if below is not None else []
    return f" {' '.join(words)}" if words else ""


def between(schema: Schema, least: str, most: str) -> str:
    """How many items or characters there may be."""
    low, high = schema.get(least, 0), schema.get(most)
    if low and high is not None:
        return f" ({low})" if low == high else f" ({low} to {high})"
    return f" (at most {high})" if high is not None else f" (at least {low})" if low else ""


def figure(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if abs(value) < 10**15 else f"{value:.4g}"


def default_of(schema: Schema, name: str, required: Iterable[str]) -> str:
    """The default of a member in a table's cell."""
    if name in required:
        return "required"
    value = schema.get("default")
    if isinstance(value, Mapping):
        return f"`{value['type']}`" if "type" in value else ""
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def members(schema: Schema, *, hidden: Iterable[str] = (), exact: Container[str] = ()) -> Iterator[str]:
    """The members of an object as a table; nothing for one without any. Those that are `exact` are written as text."""
    shown = {name: one for name, one in schema.get("properties", {}).items() if name not in hidden}
    if not shown:
        yield "It has no members."
        return
    required = schema.get("required", ())
    said = any("description" in one for one in shown.values())
    head = ("member", "values", "default", *(("what it is",) if said else ()))

    def cell(name: str, one: Schema) -> str:
        return values_of(one).replace("text", "figure") if name in exact else values_of(one)

    rows = (
        (
            f"`{name}`",
            cell(name, one),
            default_of(one, name, required),
            *((one.get("description", ""),) if said else ()),
        )
        for name, one in shown.items()
    )
    yield from table(head, rows)


def definitions(schema: Schema, known: Mapping[str, Schema], told: set[str]) -> Iterator[str]:
    """Headings and tables of the definitions that a schema needs and that were not told yet, in that order."""
    waiting = [*references(schema)]
    while waiting:
        name = waiting.pop(0)
        if name in told:
            continue
        told.add(name)
        one = known[name]
        yield from ("", f"### {name}", "")
        if text := paragraphs(one.get("description", "")):
            yield from (text, "")
        if "properties" in one:
            yield from members(one)
        else:
            yield values_of(one)
        waiting = [*references(one), *waiting]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if name := name_of(node):
            yield name
        for one in (value for key, value in node.items() if key not in ("discriminator", "$defs")):
            yield from references(one)
    elif isinstance(node, list):
        for one in node:
            yield from references(one)


def paragraphs(text: str) -> str:
    return inspect.cleandoc(text) if text else ""


# ---------------------------------------------------------------- pages


def requests() -> Iterator[str]:
    """Every option of a request and of a search."""
    from contracts.request import Request
    from contracts.request.population import Population
    from contracts.request.request import MODES
    from contracts.request.search import RangeTest, Search

    yield from ("# Requests", "", NOTE, "")
    yield "A request is a mapping in YAML, TOML or JSON. An unknown member is an error. `swarm config show FILE` writes"
    yield "every default out, `swarm check FILE` tries it with one real batch. A number given to `--set` stands after a"
    yield "dotted path: `--set optimizer.learning_rate=0.01`."
    told: set[str] = set()
    titles = {
        "A training": Request,
        "A search": Search,
        "A population": Population,
        "A learning-rate range test": RangeTest,
    }
    for title, model in titles.items():
        schema = model.model_json_schema()
        yield from ("", f"## {title}", "", paragraphs(schema.get("description", "")), "")
        yield from members(schema)
        if model is Request:
            yield from ("", "A mode gives other defaults; what a request says itself wins:", "")
            for mode, sections in MODES.items():
                said = [
                    f"`{section}.{name}: {value}`"
                    for section, given in sections.items()
                    for name, value in given.items()
                ]
                yield f"- `{mode}`: {', '.join(said)}"
        yield from definitions(schema, schema.get("$defs", {}), told | {"Request"} if model is not Request else told)


def events() -> Iterator[str]:
    """Every event with its fields, by who says it."""
    from contracts.event import Event
    from contracts.roles import ANYBODY
    from runtime.commands.asyncapi import Schemas, data_of, speakers
    from runtime.node import roster

    agents = roster.load_all()
    spoken = speakers(agents)
    known = Schemas(event for event, _ in spoken).definitions
    yield from ("# Events", "", NOTE, "")
    yield "What stands in a log, by who says it. Around each is an envelope (`docs/log-format.md`); here is its data."
    yield "The number behind the name is the version that is written now; older ones are read for ever. `swarm events S"
    yield "--json` prints them, `swarm asyncapi` gives the same as a document for programs. A `figure` is a number"
    yield "that JSON holds as exact hexadecimal text (`0x1.8p+1`); in Python it is a float."
    lanes = dict.fromkeys(lane for _, lanes in spoken for lane in lanes or (ANYBODY,))
    told: set[str] = set()
    values: list[str] = []
    for lane in sorted(lanes, key=lambda lane: (lane == ANYBODY, lane)):
        about = agents[lane].__doc__ if lane in agents else ""
        yield from ("", f"## {'any role' if lane == ANYBODY else lane}", "")
        if about:
            yield from (paragraphs(about).partition("\n\n")[0], "")
        mine = [event for event, said_by in spoken if lane == (said_by or (ANYBODY,))[0]]
        for module in dict.fromkeys(event.__module__ for event in mine):
            names = ", ".join(event.__name__ for event in mine if event.__module__ == module)
            yield from (f"In Python: `from {module} import {names}`", "")
        for event, said_by in spoken:
            if lane not in (said_by or (ANYBODY,)):
                continue
            first, *_ = said_by or (ANYBODY,)
            if lane != first:
                yield from (f"Also [{event.wire}](#{event.wire.replace('.', '')}).", "")
                continue
            schema = known[data_of(event)]
            hearers = [name for name, agent in agents.items() if event in agent.hears() or Event in agent.hears()]
            yield from (f"### {event.wire}", "", paragraphs(schema.get("description", "")), "")
            yield f"Version {event.version()}. Heard by {', '.join(hearers) or 'no agent; it is folded'}."
            yield ""
            exact = {name for name, one in event.model_fields.items() if "float" in str(one.annotation)}
            yield from members(schema, exact=exact)
            yield ""
            values += definitions(schema, known, told)
    yield from ("## Values", "", "What fields of several events hold.", *values)


def commands() -> Iterator[str]:
    """Every command that the front desk answers, with the right it needs."""
    from pydantic import TypeAdapter

    from contracts import commands as asked

    yield from ("# Commands", "", NOTE, "")
    yield "A command is JSON, sent as a request to the subject `swarm.cmd.COMMAND`; the owner of a home uses"
    yield "`swarm.owner.COMMAND`. The answer is JSON: the reply below, or an object `error` with code, message, path,"
    yield "cure, and of a request all its `problems`. In a body null means not given, and unknown members mean nothing."
    yield "A session is named by its id, a unique beginning of it, its request_id, `last` (the newest training) or"
    yield "`last-KIND`."
    yield ""
    yield from table(
        ("command", "right", "what it does"),
        ((f"[{verb}](#{verb})", one.right, one.summary()) for verb, one in asked.BODIES.items()),
    )
    yield from ("", "To `ask` is to read and to have sessions made, to `decide` is to change the course of a session,")
    yield "and to `administer` is to say who may take part."
    for verb, one in asked.BODIES.items():
        yield from ("", f"## {verb}", "", paragraphs(one.__doc__ or ""), "", f"Right: {one.right}. Body:", "")
        if issubclass(one, asked.SubmitCommand):
            yield "The members of the request ([requests.md](requests.md)), and:"
            yield ""
        yield from members(one.model_json_schema(), hidden=("request",) if issubclass(one, asked.SubmitCommand) else ())
        yield from ("", "Reply:", "")
        yield from members(TypeAdapter(one.reply).json_schema())


def command_line() -> Iterator[str]:
    """The help of every command, and the settings."""
    import click

    from runtime.cli.main import COMMANDS, swarm
    from runtime.home.settings import FIELDS

    # With the settings of the group: click keeps with each command how its help option was first called.
    context = click.Context(swarm, info_name="swarm", terminal_width=100, **swarm.context_settings)

    def pages(command: click.Command, inside: click.Context) -> Iterator[str]:
        yield from ("", f"### {inside.command_path}", "", "```text", command.get_help(inside).rstrip(), "```")
        if isinstance(command, click.Group):
            for name in command.list_commands(inside):
                below = command.get_command(inside, name)
                if below is not None:
                    yield from pages(below, click.Context(below, inside, name, terminal_width=100))

    yield from ("# The command line", "", NOTE, "")
    yield "S is a session's id, a unique beginning of it, its request_id, `last` (the newest training) or `last-KIND`"
    yield "(`last-search`, `last-audit`, ...). Every command takes `--json`: one object on one line is its answer then."
    section = ""
    for name, entry in COMMANDS.items():
        if entry.section != section:
            section = entry.section
            yield from ("", f"## {section}")
        command = swarm.get_command(context, name)  # type: ignore[attr-defined] # the group finds them by name
        yield from pages(command, click.Context(command, context, name, terminal_width=100))
    yield from ("", "## Settings", "")
    yield "Set in `settings.toml` in the home, by the variable, or for a home's place and server by an option."
    yield ""
    yield from table(
        ("setting", "variable", "default", "bounds"),
        (
            (
                f"`{name}`",
                f"`SWARM_{name.upper()}`" if "tables" not in one.metadata else f"tables `[[{name}]]` of the file alone",
                f"`{one.default}`" if one.default not in ("", ()) else "",
                _setting_bounds(one.metadata),
            )
            for name, one in FIELDS.items()
        ),
    )


def _setting_bounds(known: Mapping[str, Any]) -> str:
    if "tables" in known:
        return ", ".join(f"`{key.name}`" for key in fields(known["tables"]))
    if "most" in known:
        return f"{known['least']} to {known['most']}"
    return f"{known['least']} or more" if "least" in known else ", ".join(known.get("known", ()))


def errors() -> Iterator[str]:
    """Exit codes, and the errors that have them."""
    from contracts import errors as known

    def below(kind: type[known.SwarmError], depth: int = 0) -> Iterator[tuple[int, type[known.SwarmError]]]:
        yield depth, kind
        for child in kind.__subclasses__():
            if child.__module__ == known.__name__:
                yield from below(child, depth + 1)

    yield from ("# Errors and exit codes", "", NOTE, "")
    yield "A command ends with one of these codes and one clear message; with `--json` the error is an object with the"
    yield "members code, message, path and cure. From Python the same errors are raised; all are names of `stigmergy`."
    yield ""
    codes = {"0": "ok", "124": "the time that was given is over; what was waited for may go on", "130": "interrupted"}
    codes |= {"1": "failed", "2": "invalid input, or wrong usage", "3": "a verification did not hold"}
    codes |= {"4": "not found", "5": "the bus is not reachable", "6": "refused"}
    yield from table(("exit code", "meaning"), sorted(codes.items(), key=lambda one: int(one[0])))
    yield ""
    rows = (
        (f"{'· ' * depth}`{kind.__name__}`", f"`{kind.code}`", str(kind.exit_code), paragraphs(kind.__doc__ or ""))
        for depth, kind in below(known.SwarmError)
    )
    yield from table(("error", "code", "exit code", "when"), rows)


HANDED = {
    "Batch": (
        "Batch = Mapping[str, Tensor]",
        (
            "The rows of one batch by column. A built-in source has `x` and, where there is a target, `y`; data of "
            "a workload has the columns that `data` gives. Of a column whose rows have any length, `NAME` holds all "
            "values and `NAME.offsets` where each row begins."
        ),
    ),
    "Rows": (
        "Rows = Mapping[str, np.ndarray | Ragged | Sequence[np.ndarray] | Sequence[bytes]]",
        (
            "What `data` gives: columns by name, with one entry per row. `{'train': ..., 'val': ..., 'test': ...}` of "
            "such columns gives the splits as well."
        ),
    ),
    "Metric": (
        "Metric = Callable[[Tensor, Batch], float] | StreamingMetric",
        "A function of all answers and columns of a split, or a metric that takes them batch by batch and keeps less.",
    ),
}
"""Types of a workload that are aliases: their definitions, and what they hold."""


def python() -> Iterator[str]:
    """Every public name of `stigmergy` with its signature and what it says of itself."""
    import stigmergy
    from contracts.session import SessionState
    from contracts.training import TrainingState
    from runtime.engine.facts import Column, Facts
    from runtime.engine.random_keys import Draw

    found = {name: getattr(stigmergy, name) for name in stigmergy.__all__}
    errors_ = {name for name, one in found.items() if inspect.isclass(one) and issubclass(one, stigmergy.SwarmError)}
    functions = [name for name, one in found.items() if inspect.isfunction(one) and name not in ("on", "every")]
    mine = ["Session", "Swarm", "MetricsTable", "ModelFile", "Verdict", "Divergence", "BundleFile", "Anchor"]
    mine += ["SessionsDifference", "RowAnswer", "StepAnswer", "InspectAnswer", "ProofAnswer", "DiagnosisAnswer"]
    mine += ["HealthDifference", "TrialsAnswer", "TrialRow", "TrialRung"]
    yield from (
        "# Python",
        "",
        NOTE,
        "",
        "`import stigmergy` loads nothing heavy; each name is loaded when it is used.",
    )
    yield "Everything works inside a running event loop, so in a notebook as well. Errors: [errors.md](errors.md)."
    for title, names in (
        ("Functions", functions),
        ("Sessions, swarms and what they answer", mine),
        ("Agents", ["Agent", "on", "every", "Say", "Wakeup", "Event", "Exact"]),
        ("Workloads", ["Workload", "StreamingMetric", "OptimizerPart", "Group", "Memory", "Ragged"]),
    ):
        yield from ("", f"## {title}")
        for name in names:
            yield from object_page(name, found[name])
    yield from ("", "## What an agent reads of a session", "")
    yield "`wakeup.session` and `wakeup.now` are a `SessionState`: its `kind.name` is training, trial, search, export,"
    yield "audit or proof, its `training` a `TrainingState` with the metrics by name (floats) in `best.values` and"
    yield "`evaluations[-1].values`. Fields that are events have the members that [events.md](events.md) lists."
    for handed in (SessionState, TrainingState):
        yield from object_page(handed.__name__, handed)
    yield from ("", "## What a workload is handed and gives", "")
    yield "No import is needed for these; for annotations they are names of `runtime.engine.workload`."
    for name, (form, text) in HANDED.items():
        yield from ("", f"### {name}", "", "```python", form, "```", "", text)
    for handed in (Facts, Column, Draw):
        yield from object_page(handed.__name__, handed)
    rest = sorted(set(found) - errors_ - {*functions, *mine})
    aliases = [name for name in rest if getattr(found[name], "__name__", name) != name]
    yield from ("", "## Names of before", "")
    yield "; ".join(f"`{name}` is `{found[name].__name__}`" for name in aliases) + "."


def object_page(name: str, one: Any) -> Iterator[str]:
    """Signature and docstring, and of a class those of its public members."""
    yield from ("", f"### {name}", "", "```python", signature(name, one), "```", "")
    yield (
        paragraphs(one.__doc__ or "") if inspect.isclass(one) or inspect.isfunction(one) else "A type for annotations."
    )
    if not inspect.isclass(one):
        return
    if is_typeddict(one):
        for key, given in one.__annotations__.items():
            told = getattr(given, "__forward_arg__", annotation(given) if inspect.isclass(given) else str(given))
            yield from ("", f"- `{key}: {re.sub(r'(?:[a-z_]+[.])+', '', told)}`")
        return
    ours = [base for base in one.__mro__ if base.__module__.split(".")[0] in ("contracts", "runtime", "stigmergy")]
    members_ = {key: value for base in reversed(ours) for key, value in vars(base).items() if key[0] != "_"}
    for key, value in members_.items():
        doc = inspect.getdoc(getattr(one, key)) if not isinstance(value, property) else value.__doc__
        if isinstance(value, property):
            yield from ("", f"- `{key}`: {one_line(doc)}")
        elif callable(getattr(one, key, None)) and not inspect.isclass(value):
            yield from ("", f"- `{signature(key, getattr(one, key))}`", textwrap.indent(paragraphs(doc or ""), "  "))


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def signature(name: str, one: Any) -> str:
    """A signature as it is written, its annotations without quotes."""
    bare = getattr(one, "__wrapped__", one)
    if inspect.isclass(one) and one.__init__ is object.__init__:
        return f"class {name}"
    if is_typeddict(one):
        return f"class {name}(TypedDict)"
    try:
        found = inspect.signature(bare)
    except (TypeError, ValueError):
        return name
    parts, star = [], False
    for given in found.parameters.values():
        if given.name in ("self", "cls"):
            continue
        text = {given.VAR_POSITIONAL: "*", given.VAR_KEYWORD: "**"}.get(given.kind, "") + given.name
        if given.kind is given.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        text += f": {annotation(given.annotation)}" if given.annotation is not given.empty else ""
        default = given.default
        parts.append(text if default is given.empty else f"{text} = {default!r}" if plain(default) else f"{text} = ...")
        star = star or given.kind is given.VAR_POSITIONAL
    returned = f" -> {annotation(found.return_annotation)}" if found.return_annotation is not found.empty else ""
    opened = bare is not one and inspect.isasyncgenfunction(bare)
    awaited = inspect.iscoroutinefunction(bare)
    prefix = "class " if inspect.isclass(one) else "async with " if opened else "await " if awaited else ""
    return f"{prefix}{name}({', '.join(parts)}){'' if inspect.isclass(one) else returned}"


def plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | tuple)


def annotation(given: Any) -> str:
    """A type as a file writes it that imports its names from their modules."""
    if isinstance(given, str) or (inspect.isclass(given) and not typing.get_args(given)):
        return given if isinstance(given, str) else given.__name__
    return re.sub(r"\b(?:[a-z_]\w*\.)+", "", str(given))


def diagnosis() -> Iterator[str]:
    """Every rule, in the order of priority."""
    from runtime.diagnosis.evidence import rules

    yield from ("# Rules", "", NOTE, "")
    yield (
        "What `problem.diagnosed` can name, the cause of others first: of several findings the one with the smallest"
        " `priority` explains the rest. A note is worth saying, a warning harms, and what is critical ends in nothing"
        " useful. Findings may be milder than the table says, and their cures are more exact. Rules of edition 1 judge"
        " sessions of every age; those of edition 2 judge sessions whose windows have sensors. `chance` is the loss of"
        " a model that knows how often each answer occurs and nothing else; where it does not follow from the task it"
        " is the loss of the first batch. Rules that are asked after `resources` advise, and no remedy follows them."
    )
    yield ""
    head = ("priority", "rule", "looks at", "severity", "asked after", "edition", "cure")
    yield from table(
        head,
        (
            (str(at), f"`{name}`", one.looks_at, one.severity, " or ".join(one.after), str(one.edition), one.cure)
            for at, (name, one) in enumerate(rules.all.items(), 1)
        ),
    )


def silent_bugs() -> Iterator[str]:
    """Every silent bug of a workload's code that can be told, in the order of the table in the code."""
    from runtime.home.silent_bugs import SILENT_BUGS

    yield from ("# Silent bugs in a workload's code", "", NOTE, "")
    yield (
        "What `swarm check` and `swarm workload add` can say of a workload's code that trains without an error and not"
        " as it was meant. `text` is seen in the source, of which nothing is run, by both commands; `batch` with the"
        " model and up to 64 rows of the first batch, in a child, by `swarm check`. A note may be meant. Each finding"
        " names the file, the line where one is known, what was measured, and the cure. A finding refuses nothing: the"
        " exit code stays 0, and `--json` lists findings under `code`."
    )
    yield ""
    yield from table(
        ("bug", "severity", "what tells it", "seen in", "cure"),
        (
            (f"`{name}`", one.severity, one.looks_at, " and ".join(one.seen_in), one.cure)
            for name, one in SILENT_BUGS.items()
        ),
    )


PAGES = {
    "rules.md": diagnosis,
    "silent-bugs.md": silent_bugs,
    "requests.md": requests,
    "events.md": events,
    "commands.md": commands,
    "command-line.md": command_line,
    "errors.md": errors,
    "python.md": python,
}


def page(name: str) -> str:
    """What a page has to hold."""
    lines = "\n".join(line.rstrip() for text in PAGES[name]() for line in text.split("\n"))
    while "\n\n\n" in lines:
        lines = lines.replace("\n\n\n", "\n\n")
    return lines.strip() + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PLACE.mkdir(exist_ok=True)
    for known in PAGES:
        (PLACE / known).write_text(page(known), encoding="utf-8")
