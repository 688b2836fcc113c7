"""Which options a workload takes, and those of a request that it does not. It runs no user code and opens no file.

Only a request that is about to begin is judged: in a session that has begun, an option that nothing reads changes no
bit, and it goes on and is audited as it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contracts.errors import InvalidRequest, Problem
from contracts.request.reading import did_you_mean, put

if TYPE_CHECKING:
    from pydantic import BaseModel

    from runtime.home.workloads import WorkloadEntry, Workloads

ANYTHING = "*"
"""Stands among the options of a workload that takes any, or whose own code has a say before its model does."""

SECTIONS = ("data", "model")


def names_of(options: type[BaseModel]) -> list[str]:
    """The names under which a workload's `Options` take values."""
    judges = {one.info.mode for one in options.__pydantic_decorators__.model_validators.values()}
    if options.model_config.get("extra") == "allow" or judges & {"before", "wrap"}:
        return [ANYTHING]
    names = list(options.model_fields)
    for field in options.model_fields.values():
        names += [*_keys(field.alias), *_keys(field.validation_alias)]
    return list(dict.fromkeys(names))


def refuse_unknown(request: Mapping[str, Any], workloads: Workloads) -> None:
    """Raises `InvalidRequest` for options of a training, or of a search and what it tries, that no workload takes.

    Nothing is said of workloads whose options were not looked at when they were added.
    """
    base = request.get("base")
    asked, where = (base, "base.") if isinstance(base, Mapping) else (request, "")
    for path in request.get("space") or () if where else ():
        asked = put(asked, path.split("."), None)
    if not any(_workload(asked, section) for section in SECTIONS):
        return
    if problems := list(unknown(asked, workloads.list())):
        raise InvalidRequest([replace(one, path=f"{where}{one.path}") for one in problems])


def unknown(request: Mapping[str, Any], workloads: Iterable[WorkloadEntry]) -> Iterator[Problem]:
    """The options in a request that its workloads do not take."""
    known = {one.name: one.options for one in workloads if one.options is not None}
    for section in SECTIONS:
        name = _workload(request, section)
        options = known.get(name, (ANYTHING,))
        for key in request[section].get("options") or () if ANYTHING not in options else ():
            if key not in options:
                cure = did_you_mean(key, options) if options else "It has no class `Options`: leave this out."
                yield Problem(f"{section}.options.{key}", f"the workload {name!r} takes no option {key!r}", cure)


def _workload(request: Mapping[str, Any], section: str) -> str:
    part = request.get(section)
    return str(part.get("workload") or "") if isinstance(part, Mapping) else ""


def _keys(alias: object) -> Iterator[str]:
    """The keys by which a pydantic alias finds a value."""
    if isinstance(alias, str):
        yield alias
    for choice in getattr(alias, "choices", ()):
        yield from _keys(choice)
    yield from (str(one) for one in getattr(alias, "path", ())[:1])
