"""What is noticed about rows: each kind with its count and first places, and a list of all that were set aside."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Literal

import orjson

from contracts.data_manager import Finding
from contracts.errors import Problem

Severity = Literal["note", "warning"]

MOST_TOLERATED = 0.5
"""The largest `data.tolerance` of a request."""

PLACES = 10
"""How many places of one kind of finding are named; all of them are counted, and listed when rows were set aside."""

SET_ASIDE = "set-aside.jsonl"

CURES: Mapping[str, str] = {
    "corrupt": "Correct these rows or remove them.",
    "missing": "Fill the gaps, or name the columns that have them in `ignore`.",
    "non-finite": "Correct these values or remove the rows.",
    "unlabelled": "Label these rows or remove them.",
    "too-small": "Remove them, or lower `data.quality.min_side`.",
    "blurred": "Remove them, or lower `data.quality.min_sharpness`.",
    "flat": "Remove them, or lower `data.quality.min_contrast`.",
    "plain": "Remove them, or lower `data.quality.min_complexity`.",
    "duplicate": "Remove them, or write `duplicates: keep` when equal rows are the data.",
}
"""The kinds of rows that are set aside, in the order in which they are complained about."""


class Findings:
    """What was noticed, each kind once. `rows` is how many the source has, broken ones included."""

    def __init__(self, directory: Path, files: ExitStack) -> None:
        self.rows = 0
        self._files = files
        self._by_kind: dict[str, Finding] = {}
        self._directory = directory
        self._list: IO[bytes] | None = None

    def add(self, kind: str, where: str = "", *, count: int = 1, severity: Severity = "note") -> None:
        """One more thing of this kind; the severity of a kind is that of its last."""
        known = self._by_kind.get(kind)
        places = known.where if known else []
        self._by_kind[kind] = Finding(
            kind=kind,
            count=count + (known.count if known else 0),
            where=[*places, where] if where and len(places) < PLACES else places,
            severity=severity,
        )

    def set_aside(self, kind: str, where: str) -> None:
        """One more row that cannot be used, and why; all of them are listed beside the dataset."""
        self.add(kind, where, severity="warning")
        if self._list is None:
            self._list = self._files.enter_context((self._directory / SET_ASIDE).open("wb"))
        self._list.write(orjson.dumps({"kind": kind, "where": where}) + b"\n")

    def close(self) -> None:
        """The list of the rows that were set aside is complete."""
        if self._list is not None:
            self._list.close()

    def count(self, kind: str) -> int:
        """How often this kind of problem was noticed."""
        return self._by_kind[kind].count if kind in self._by_kind else 0

    def places(self, kind: str) -> list[str]:
        """The first few places at which this kind of problem was noticed."""
        return list(self._by_kind[kind].where) if kind in self._by_kind else []

    def __iter__(self) -> Iterator[dict[str, object]]:
        return (finding.model_dump() for finding in self._by_kind.values())


def too_many(findings: Findings, tolerance: float, path: str) -> list[Problem]:
    """One problem with every kind of broken row, when together they are more than may be set aside; else nothing."""
    broken = [kind for kind in CURES if findings.count(kind)]
    count, rows = sum(findings.count(kind) for kind in broken), findings.rows
    if count <= tolerance * rows:
        return []
    kinds = " or ".join(filter(None, (", ".join(broken[:-1]), broken[-1])))
    share, allowed = f"{100 * count / rows:.3g}%", f"{100 * tolerance:g}%"
    said = f"{count} of {rows} rows ({share}) are {kinds}, more than `data.tolerance` ({allowed})"
    each = "; ".join(f"{findings.count(kind)} {kind} ({'; '.join(findings.places(kind)[:3])})" for kind in broken)
    cures = " ".join(CURES[kind] if len(broken) == 1 else f"{kind.capitalize()}: {CURES[kind]}" for kind in broken)
    enough = next(share / 100 for share in range(101) if count <= share / 100 * rows)
    aside = f" `data.tolerance: {enough:g}` sets these aside." if enough <= MOST_TOLERATED else ""
    return [Problem(path, f"{said}: {each}", cures + aside)]


def leaking(findings: Findings, sizes: Mapping[str, int], tolerance: float) -> list[Problem]:
    """The splits in which more rows are also in train than may be set aside."""
    cure = (
        "Remove them, name the column that binds them in `split.group`, or write `duplicates: keep`. "
        f"Up to {100 * tolerance:g}% of a split are set aside for you (`data.tolerance`)."
    )
    return [
        Problem(
            "data.split",
            f"{findings.count(leak)} of {size} {name} rows are also in train ({'; '.join(findings.places(leak)[:3])})",
            cure,
        )
        for name, size in sizes.items()
        if findings.count(leak := f"leak-{name}") > tolerance * size
    ]
