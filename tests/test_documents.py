"""The documents name files, modules and rooms that exist, and the architecture's table is the linter's contract."""

from __future__ import annotations

import ast
import builtins
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("contracts", "bus", "runtime", "agents")
TOPS = (*PACKAGES, "docs", "tests", "examples", "benchmarks", "deploy")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

HISTORY = {"docs/decisions.md"}
"""A decision is told with the names of its day. It is added to, never rewritten after a move."""

PATH = re.compile(rf"(?<![\w./<>~-])(?:{'|'.join(TOPS)})/[\w./*-]*")
PYTHON = re.compile(r"(?<![\w./*<>-])[\w/]+\.py\b")
MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+")

QUALIFIED = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:(?:\.\w+)+|(?:/\w+)+(?:\.\w+|/)?)")
CLASS = re.compile(r"`([A-Z][a-z]\w*)(?:\.\w+)?`")
OF_OTHERS = frozenset({"OneCycleLR", "DequantizeLinear", "NaN", "Infinity"})
"""Names of torch, ONNX and JSON."""
IMPORT = re.compile(r"^\s*(?:from|import) runtime\.(\w+)", flags=re.MULTILINE)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@cache
def python_files() -> frozenset[str]:
    """Every Python file of the tree, by its path from the root with a slash before it."""
    names = (path for top in (*TOPS, "stigmergy") for path in (ROOT / top).rglob("*.py"))
    return frozenset(f"/{path.relative_to(ROOT).as_posix()}" for path in names)


def missing(text: str) -> set[str]:
    """The names of files, folders and modules in this text that the tree does not have."""
    text = re.sub(r"\bNAME\b", "*", text)
    paths = {name.rstrip(".") for name in PATH.findall(text)}
    gone = {name for name in paths if not any(ROOT.glob(name.rstrip("/")))}
    gone |= {name for name in PYTHON.findall(text) if not any(path.endswith(f"/{name}") for path in python_files())}
    return gone | {name for name in MODULE.findall(text) if not is_python_name(name)}


def is_python_name(dotted: str) -> bool:
    """Whether `contracts.session.advance` and the like is a module, or a name at the top of one."""
    place, *rest = dotted.split(".")
    path = ROOT / place
    while rest and ((path / rest[0]).is_dir() or (path / f"{rest[0]}.py").is_file()):
        path /= rest.pop(0)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not rest or not file.is_file():
        return not rest
    text = file.read_text(encoding="utf-8")
    return bool(re.search(rf"^(?:class |(?:async )?def |from .* import .*\b)?{rest[0]}\b", text, flags=re.MULTILINE))


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in HISTORY])
def test_every_file_and_module_that_a_document_names_exists(document: str) -> None:
    assert missing((ROOT / document).read_text(encoding="utf-8")) == set()


def names_of(tree: ast.Module) -> set[str]:
    """The names that a module defines or imports, at any depth."""
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return found | {(one.asname or one.name).rpartition(".")[2] for node in imports for one in node.names}


def docstrings_of(tree: ast.Module) -> Iterator[str]:
    """The texts that stand alone as statements: docstrings of modules, classes, functions and values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


@cache
def product() -> Mapping[str, ast.Module]:
    """Every module of the product by its path, but the one whose bytes old bundles have."""
    paths = (path for top in PACKAGES for path in (ROOT / top).rglob("*.py") if path.name != "verify_bundle.py")
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@cache
def known_names() -> frozenset[str]:
    """The names of the product and of Python, and those of libraries that the texts name."""
    return OF_OTHERS.union(dir(builtins), *map(names_of, product().values()))


def unknown_classes(text: str) -> set[str]:
    """Names in backticks that look like classes and are not known."""
    return set(CLASS.findall(text)) - known_names()


def test_every_name_that_a_docstring_gives_in_backticks_exists() -> None:
    text = "\n\n".join(text for tree in product().values() for text in docstrings_of(tree))
    references = " ".join(name for name in re.findall(r"`([^`\n]+)`", text) if QUALIFIED.fullmatch(name))
    assert missing(references) == set()
    assert unknown_classes(text) == set()


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in HISTORY])
def test_every_class_that_a_document_names_exists(document: str) -> None:
    assert unknown_classes((ROOT / document).read_text(encoding="utf-8")) == set()


def floors() -> list[list[str]]:
    """The rooms of the runtime as the linter has them, the highest floor first."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == ["runtime"])
    return [[room.strip() for room in floor.split("|")] for floor in layers]


def imported(room: str) -> set[str]:
    """The other rooms of the runtime that the files of a room import."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "runtime" / room).rglob("*.py"))
    return {name for text in texts for name in IMPORT.findall(text)} - {room}


def picture() -> str:
    """Rooms from the highest floor to the lowest, each with arrows to the rooms that it imports."""
    rooms = [room for floor in floors() for room in floor]
    lines = [f"{room:<9} ──▶ {' '.join(name for name in rooms if name in imported(room))}" for room in rooms]
    return "\n".join(line.rstrip(" ─▶") if line.endswith("▶ ") else line for line in lines)


def test_the_table_of_rooms_is_the_contract_of_the_floors() -> None:
    rows = re.findall(r"^\| (\d+) \| `runtime/(\w+)/` \|", ARCHITECTURE, flags=re.MULTILINE)
    assert rows == [(str(number), room) for number, floor in enumerate(floors(), start=1) for room in floor]


def test_the_picture_of_rooms_shows_every_import_between_them() -> None:
    assert picture() in ARCHITECTURE


def test_every_package_says_in_a_sentence_what_it_is_for() -> None:
    folders = [path for path in python_files() if path.endswith("/__init__.py") and not path.startswith("/tests/")]
    silent = [path for path in folders if not (ROOT / path[1:]).read_text(encoding="utf-8").startswith('"""')]
    assert silent == []


def test_every_word_of_the_glossary_stands_once_with_a_meaning_and_a_place() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!word )([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    words = [word for word, _, _ in rows]
    assert len(words) > 50
    assert len(set(words)) == len(words)
    assert [row for row in rows if not row[1].endswith(".") or not row[2].startswith("`")] == []


def test_a_name_that_the_tree_does_not_have_is_found() -> None:
    text = "`runtime/writer.py`, `runtime/log/`, `nowhere.py`, `contracts.session.advance`, `contracts.session.retreat`"
    assert missing(text) == {"runtime/writer.py", "nowhere.py", "contracts.session.retreat"}
    assert unknown_classes("`WindowRecorded`, `WindowForgotten`, `KeyError`") == {"WindowForgotten"}


if __name__ == "__main__":
    print(picture())
