"""Nested plain data as one mapping from dotted paths, as people name values of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping from dotted paths."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    found: dict[str, Any] = {}
    for name, one in inner:
        found |= flat(one, f"{path}.{name}" if path else str(name))
    return found or ({path: value} if path else {})
