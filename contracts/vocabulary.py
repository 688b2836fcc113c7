"""Every event that the product itself says."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil

import contracts
from contracts.event import Event, Unknown


@functools.cache
def events() -> dict[str, type[Event]]:
    """The events that files of `contracts` define, by wire name; those of guests are not among them."""
    found = dict[str, type[Event]]()
    for module in pkgutil.iter_modules(contracts.__path__, "contracts."):
        if not module.ispkg and module.name != __name__:
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
            found |= {one.wire: one for _, one in members if issubclass(one, Event) and one not in (Event, Unknown)}
    return dict(sorted(found.items()))
