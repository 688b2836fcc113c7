"""`swarm config`: settings with their origin, requests with their defaults, and the schemas of both."""

from __future__ import annotations

from typing import Any

import click
import orjson

from runtime.cli.call import Call, command, remember, shared
from runtime.cli.wording import table

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
        from runtime.api.request_file import judged

        resolved = judged(request, overrides)
        call.result(resolved, lambda: orjson.dumps(resolved, option=orjson.OPT_INDENT_2).decode())
        return
    from runtime.home.settings import FIELDS

    settings = call.settings
    found = {name: {"value": _plain(getattr(settings, name)), "origin": settings.origins[name]} for name in FIELDS}
    rows = [[name, _shown(one["value"]), one["origin"]] for name, one in found.items()]
    call.result(found, table(("setting", "value", "from"), rows))


@command("schema", short_help="Print the JSON Schema of requests and settings.")
@click.argument("what", type=click.Choice(["request", "search", "settings"]), required=False)
def schema(call: Call, *, what: str | None) -> None:
    """Print the JSON Schema of requests, for editors; it has the settings under `$defs/Settings`."""
    makers = {"settings": _settings_schema, "search": _search_schema}
    found = makers[what]() if what in makers else _request_schema(with_settings=what is None)
    call.result(found, lambda: orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


def _request_schema(*, with_settings: bool) -> dict[str, Any]:
    from contracts.request import Request

    found = Request.model_json_schema()
    if with_settings:
        found["$defs"]["Settings"] = _settings_schema()
    return {"$schema": DIALECT} | found


def _search_schema() -> dict[str, Any]:
    from pydantic import TypeAdapter

    from contracts.request.search import RangeTest, Search

    found: dict[str, Any] = TypeAdapter(Search | RangeTest).json_schema()
    return {"$schema": DIALECT} | found


def _settings_schema() -> dict[str, Any]:
    from runtime.home.settings import FIELDS

    kinds = {bool: "boolean", int: "integer", float: "number", tuple: "array"}
    properties: dict[str, Any] = {}
    for name, one in FIELDS.items():
        about = f"Environment: SWARM_{name.upper()}; file: <home>/settings.toml."
        found = {"type": kinds.get(type(one.default), "string"), "default": _plain(one.default), "description": about}
        found |= {"minimum": one.metadata["least"]} if "least" in one.metadata else {}
        found |= {"enum": list(one.metadata["known"])} if "known" in one.metadata else {}
        properties[name] = found
    return {"type": "object", "title": "Settings", "properties": properties, "additionalProperties": False}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


config.add_command(show)
config.add_command(schema)
