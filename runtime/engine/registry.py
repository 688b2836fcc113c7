"""Finds the part that carries out an option: one module per kind of part, imported when the first is asked for."""

import importlib
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """The parts of one kind, keyed by the option class (or the metric's name) they carry out."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._parts: dict[Any, Part] = {}

    def part(self, option: Hashable) -> Callable[[Part], Part]:
        """Decorator: this carries out `option`."""

        def register(part: Part) -> Part:
            if option in self._parts:
                raise ValueError(f"{option!r} has two parts in {self._module}")
            self._parts[option] = part
            return part

        return register

    def of(self, option: Any) -> Part:
        """The part for an option's value, or for a name."""
        return self.all[option] if isinstance(option, str) else self.all[type(option)]

    @cached_property
    def all(self) -> Mapping[Any, Part]:
        """Every part of this kind; importing its module is what fills the registry."""
        importlib.import_module(self._module)
        return self._parts
