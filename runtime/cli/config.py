"""`swarm config`, `asyncapi`, `completion`: settings and schemas for people, programs and shells."""

from typing import Any
from urllib.parse import urlsplit

import click
import orjson
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from runtime.api.evidence import output_path
from runtime.cli.call import Call, Json, command, remember, shared
from runtime.cli.output import table

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.group("config")
@shared
def config(**options: Any) -> None:
    """Show what is set and what can be set."""
    remember(options)


@command("show", short_help="Show every setting, or a request with its defaults.")
@click.argument("request", metavar="[REQUEST]", required=False)
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value of REQUEST.")
def show(call: Call, *, request: str | None, overrides: tuple[str, ...]) -> None:
    """Show every setting and where it came from; with REQUEST, that request with every default written out."""
    if request is not None:
        from runtime.api.request_file import read_resolved

        resolved = read_resolved(request, overrides)
        call.result(resolved, lambda: orjson.dumps(resolved, option=orjson.OPT_INDENT_2).decode())
        return
    from runtime.home.settings import FIELDS

    settings = call.settings
    answer = {name: {"value": _plain(getattr(settings, name)), "origin": settings.origins[name]} for name in FIELDS}
    rows = []
    for name, setting in answer.items():
        value = setting["value"]
        rows.append([name, ", ".join(value) if isinstance(value, list) else str(value), setting["origin"]])
    call.result(answer, table(("setting", "value", "from"), rows))


@command("schema", short_help="Print the JSON Schema of requests and settings.")
@click.argument("what", type=click.Choice(["request", "search", "settings"]), required=False)
def schema(call: Call, *, what: str | None) -> None:
    """Print the JSON Schema of requests, for editors; it has the settings under `$defs/Settings`."""
    schema: Json
    if what == "settings":
        schema = _settings_schema()
    elif what == "search":
        from pydantic import TypeAdapter

        from contracts.request.search import Method

        schema = {"$schema": DIALECT} | TypeAdapter(Method).json_schema()
    else:
        from contracts.request import Request

        schema = {"$schema": DIALECT} | Request.model_json_schema()
        if what is None:
            schema["$defs"]["Settings"] = _settings_schema()
    call.result(schema, lambda: orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())


def _settings_schema() -> Json:
    from runtime.home.settings import FIELDS

    kinds = {bool: "boolean", int: "integer", float: "number", tuple: "array"}
    properties: Json = {}
    for name, field in FIELDS.items():
        about = f"Environment: SWARM_{name.upper()}; file: <home>/settings.toml."
        kind = kinds.get(type(field.default), "string")
        schema = {"type": kind, "default": _plain(field.default), "description": about}
        schema |= {"minimum": field.metadata["least"]} if "least" in field.metadata else {}
        schema |= {"enum": list(field.metadata["known"])} if "known" in field.metadata else {}
        properties[name] = schema
    return {"type": "object", "title": "Settings", "properties": properties, "additionalProperties": False}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        # What a table shows of itself has no secret.
        return [str(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


config.add_command(show)
config.add_command(schema)


@command("asyncapi")
@click.option("-o", "--output", metavar="FILE", help="Write it there.")
def asyncapi(call: Call, *, output: str | None) -> None:
    """Print the AsyncAPI 3 document of every subject, with a JSON Schema for every message."""
    from runtime.commands.asyncapi import document

    host = call.home.host()
    path = output_path(output) if output is not None else None
    schema = document(host=urlsplit(host.url).netloc) if host is not None and host.alive else document()
    text = orjson.dumps(schema, option=orjson.OPT_INDENT_2)
    if path is None:
        call.result(schema, text.decode())
    else:
        path.write_bytes(text)
        call.result({"path": str(path)}, f"Wrote {path}")


KINDS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
WHERE = {
    "bash": 'eval "$(swarm completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(swarm completion zsh)" in ~/.zshrc',
    "fish": "swarm completion fish > ~/.config/fish/completions/swarm.fish",
}


@command("completion")
@click.argument("shell", type=click.Choice(list(KINDS)))
def completion(call: Call, *, shell: str) -> None:
    """Print the completion script for SHELL."""
    root = click.get_current_context().find_root().command
    script = KINDS[shell](root, {}, "swarm", "_SWARM_COMPLETE").source()
    call.note(f"To have it always: {WHERE[shell]}")
    call.result({"shell": shell, "script": script}, script)
