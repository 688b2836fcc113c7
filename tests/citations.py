"""What a test that a document cites is worth: whether it asserts anything, and whether it runs. It runs none."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

SKIPS = {"skip", "skipif", "xfail", "importorskip"}
CHECKS = {"raises", "warns"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Written:
    """The functions of some sources by name, and those names for which one stands that may be skipped as a whole."""

    functions: dict[str, list[Function]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, sources: Mapping[str, str]) -> Written:
        """The functions of these files."""
        found = cls()
        for text in sources.values():
            found._read(ast.parse(text))
        return found

    def _read(self, tree: ast.Module) -> None:
        marks = {target.id: one.value for one in tree.body if isinstance(one, ast.Assign) for target in one.targets
                 if isinstance(target, ast.Name)}  # fmt: skip
        whole = "pytestmark" in marks and _names(marks["pytestmark"]) & SKIPS
        for node in ast.walk(tree):
            if isinstance(node, Function):
                self.functions.setdefault(node.name, []).append(node)
                worn = set().union(*(_names(one) for one in node.decorator_list), set())
                worn |= set().union(*(_names(marks[name]) for name in worn & marks.keys()), set())
                if whole or worn & SKIPS:
                    self.skipped.add(node.name)

    def asserts(self, name: str) -> bool:
        """Whether the function asserts something, itself or by a function of these sources that it calls."""
        return any(_asserts(one) for one in self._reached(name, fixtures=False))

    def may_skip(self, name: str) -> bool:
        """Whether the function, one that it calls or a fixture that it asks for may skip it."""
        reached = list(self._reached(name, fixtures=True))
        return bool({one.name for one in reached} & self.skipped) or any(_called(one) & SKIPS for one in reached)

    def _reached(self, name: str, *, fixtures: bool) -> Iterator[Function]:
        seen: set[str] = set()
        open_ = [name]
        while open_:
            one = open_.pop()
            if one in seen:
                continue
            seen.add(one)
            for function in self.functions.get(one, ()):
                yield function
                open_ += _called(function)
                open_ += [argument.arg for argument in function.args.args] if fixtures else []


def _asserts(function: Function) -> bool:
    return any(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in ast.walk(function)
               ) or bool(_called(function) & CHECKS)  # fmt: skip


def _called(function: Function) -> set[str]:
    """The names of what is called in it: plain functions, and those of `pytest`."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                found.add(node.func.id)
            elif isinstance(node.func, ast.Attribute) and _names(node.func.value) == {"pytest"}:
                found.add(node.func.attr)
    return found


def _names(node: ast.AST) -> set[str]:
    """Every name and attribute in an expression."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return names | {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
