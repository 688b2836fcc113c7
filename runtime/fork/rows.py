"""Which training rows a person means: places, numbers in the source, ranges of either, files. Pure but for names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from contracts.errors import InvalidInput, NotFound, Refused
from runtime.engine.sampling import SPLIT
from runtime.log.row_names import RowNames, RowPlace

Runs = tuple[tuple[int, int], ...]
_RANGE = re.compile(r"(?:(train):)?(\d+)-(\d+)")


def meant(named: Iterable[str], names: RowNames, rows: int) -> Runs:
    """The places in the training split, from 1, as runs in order; at least one row must be left.

    `NotFound` for a name that no row has, `InvalidInput` for one that is not trained on.
    """
    found = joined(run for name in named for run in _runs(name.strip(), names))
    if sum(last - first + 1 for first, last in found) >= rows:
        raise Refused("no row is left to train on.", cure="Leave out fewer rows.", path="--without")
    return found


def joined(runs: Iterable[tuple[int, int]]) -> Runs:
    """The same rows as runs in order, none of which touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def _runs(name: str, names: RowNames) -> Iterator[tuple[int, int]]:
    span = _RANGE.fullmatch(name)
    if span is None:
        yield _one(name, names)
        return
    first, last = int(span[2]), int(span[3])
    if span[1]:
        begin, end = (names.find(f"{SPLIT}:{row}").row for row in (first, last))
        run: tuple[int, int] | None = (begin, end) if begin <= end else None
    else:
        run = names.between(SPLIT, first, last)
    if run is None:
        message = f"no row of the training split lies in {name!r}."
        raise NotFound(message, cure="See where a row is: swarm trace S --row ID", path="--without")
    yield run


def _one(name: str, names: RowNames) -> tuple[int, int]:
    try:
        place: RowPlace = names.find(name)
    except NotFound:
        aside = names.aside(name)
        if aside is None:
            raise
        message = f"{aside['where']}: it was set aside as {aside['kind']} and is in no split."
        raise InvalidInput(message, cure="Leave it out of this list.", path="--without") from None
    if place.split != SPLIT:
        message = f"{name!r} is {place}, which is never trained on."
        raise InvalidInput(message, cure="Leave it out of this list: only training rows can be.", path="--without")
    return place.row, place.row
