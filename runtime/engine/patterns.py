"""Picks names by patterns of a request. A pattern that fits nothing is a mistake, never ignored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from contracts.errors import InvalidRequest, Problem


def picked(patterns: Sequence[str], names: Iterable[str], path: str) -> set[str]:
    """The names that any pattern fits; raises `InvalidRequest` at `path` for each pattern that fits none."""
    known = list(names)
    found = {pattern: {name for name in known if fnmatchcase(name, pattern)} for pattern in patterns}
    problems = [
        Problem(f"{path}.{index}", f"{pattern!r} fits no tensor of the model", _cure(pattern, known))
        for index, pattern in enumerate(patterns)
        if not found[pattern]
    ]
    if problems:
        raise InvalidRequest(problems)
    return set().union(*found.values())


def _cure(pattern: str, known: Sequence[str]) -> str:
    near = get_close_matches(pattern, known, 1, 0.0)
    return f"Write names such as {near[0]!r}, with `*` for any characters." if near else "Leave it out."
