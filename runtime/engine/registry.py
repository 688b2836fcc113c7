"""Finds the part that carries out an option: one file per part, found by being there. It holds no part itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """The parts of one kind, keyed by the option class (or the metric's name) they carry out."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._parts: dict[Any, Part] = {}

    def part(self, option: Hashable) -> Callable[[Part], Part]:
        """Decorator: this carries out `option`."""

        def register(part: Part) -> Part:
            if option in self._parts:
                raise ValueError(f"{option!r} has two parts in {self._package}")
            self._parts[option] = part
            return part

        return register

    def of(self, option: Any) -> Part:
        """The part for an option's value, or for a name."""
        return self.all[option] if isinstance(option, str) else self.all[type(option)]

    @cached_property
    def all(self) -> Mapping[Any, Part]:
        """Every part of this kind; importing the package's files is what fills the registry."""
        package = importlib.import_module(self._package)
        for file in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{file.name}")
        return self._parts
