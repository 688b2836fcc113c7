"""The text of a workload's file: its bytes, their digest, the classes it defines. Nothing of it is run here."""

from __future__ import annotations

import ast
from pathlib import Path

from blake3 import blake3

from contracts.errors import InvalidInput, NotFound

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


def _imports_workload(tree: ast.Module) -> set[str]:
    """The names under which a file has imported Workload."""
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in _BASES)
    return {one.asname or one.name for node in froms for one in node.names if one.name == "Workload"}
