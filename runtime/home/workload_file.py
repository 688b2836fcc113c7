"""A workload's file as text: its bytes, their digest, its classes, and the options that it takes. None of it is run.

Only the options of a request that is about to begin are judged: in a session that has begun, an option that nothing
reads changes no bit, and it goes on and is audited as it was asked for.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from contracts.errors import InvalidInput, InvalidRequest, NotFound, Problem
from contracts.request.reading import did_you_mean, put

LIMIT = 4 << 20
_BASES = frozenset({"stigmergy", "runtime.engine.workload"})


def digest_of(source: bytes) -> str:
    """The name of a workload's source."""
    return str(blake3(source).hexdigest())


def read_source(path: Path) -> bytes:
    """The bytes of a source file; raises `NotFound` when it cannot be read."""
    try:
        with path.open("rb") as file:
            source = file.read(LIMIT + 1)
    except OSError as error:
        cure = "Name an existing Python file, or add the workload again."
        raise NotFound(f"cannot read {path}: {error.strerror}.", cure=cure, path=str(path)) from None
    if len(source) > LIMIT:
        raise InvalidInput(f"{path} has more than {LIMIT} bytes.", cure="A workload is source code.", path=str(path))
    return source


def workload_classes(source: bytes, file: Path) -> list[str]:
    """Classes that derive from Workload, directly or through each other, and from which no other one does."""
    try:
        tree = ast.parse(source)
    except (RecursionError, MemoryError):
        raise InvalidInput(f"{file} is nested too deep to be read.", cure="Write it flatter.", path=str(file)) from None
    except (SyntaxError, ValueError) as error:
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise InvalidInput(f"{file} is not Python{where}: {error}.", cure="Correct it there.", path=str(file)) from None
    known = {"Workload"} if not _imports_workload(tree) else _imports_workload(tree)
    found: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}
            if bases & (known | found.keys()):
                found[node.name] = bases
    parents = set().union(*found.values()) if found else set()
    return [name for name in found if name not in parents]


def absent_imports(source: bytes) -> list[str]:
    """The packages that a file imports at its top and that are not installed here; nothing is imported for it."""
    names: dict[str, None] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names[node.module.partition(".")[0]] = None
    return [name for name in names if name not in sys.builtin_module_names and PathFinder.find_spec(name) is None]


def _imports_workload(tree: ast.Module) -> set[str]:
    """The names under which a file has imported Workload."""
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in _BASES)
    return {one.asname or one.name for node in froms for one in node.names if one.name == "Workload"}


if TYPE_CHECKING:
    from pydantic import BaseModel

    from runtime.home.workloads import WorkloadEntry, Workloads

ANYTHING = "*"
"""Stands among the options of a workload that takes any, or whose own code has a say before its model does."""

SECTIONS = ("data", "model")


def option_names(options: type[BaseModel]) -> list[str]:
    """The names under which a workload's `Options` take values."""
    judges = {one.info.mode for one in options.__pydantic_decorators__.model_validators.values()}
    if options.model_config.get("extra") == "allow" or judges & {"before", "wrap"}:
        return [ANYTHING]
    names = list(options.model_fields)
    for field in options.model_fields.values():
        names += [*_keys(field.alias), *_keys(field.validation_alias)]
    return list(dict.fromkeys(names))


def refuse_unknown_options(request: Mapping[str, object], workloads: Workloads) -> None:
    """Raises `InvalidRequest` for options of a training, or of a search and what it tries, that no workload takes.

    Nothing is said of workloads whose options were not looked at when they were added.
    """
    base = request.get("base")
    asked, where = (base, "base.") if isinstance(base, Mapping) else (request, "")
    space = request.get("space")
    for path in space if where and isinstance(space, Mapping) else ():
        asked = put(asked, path.split("."), None)
    if not any(_workload(asked, section) for section in SECTIONS):
        return
    if problems := list(unknown_options(asked, workloads.list())):
        raise InvalidRequest([replace(one, path=f"{where}{one.path}") for one in problems])


def unknown_options(request: Mapping[str, object], workloads: Iterable[WorkloadEntry]) -> Iterator[Problem]:
    """The options in a request that its workloads do not take."""
    known = {one.name: one.options for one in workloads if one.options is not None}
    for section in SECTIONS:
        name = _workload(request, section)
        options = known.get(name, (ANYTHING,))
        part = request.get(section)
        given = part.get("options") if isinstance(part, Mapping) else None
        for key in given or () if ANYTHING not in options else ():
            if key not in options:
                cure = did_you_mean(key, options) if options else "It has no class `Options`: leave this out."
                yield Problem(f"{section}.options.{key}", f"the workload {name!r} takes no option {key!r}", cure)


def _workload(request: Mapping[str, object], section: str) -> str:
    part = request.get(section)
    return str(part.get("workload") or "") if isinstance(part, Mapping) else ""


def _keys(alias: object) -> Iterator[str]:
    """The keys by which a pydantic alias finds a value."""
    if isinstance(alias, str):
        yield alias
    for choice in getattr(alias, "choices", ()):
        yield from _keys(choice)
    yield from (str(one) for one in getattr(alias, "path", ())[:1])
