"""A CSV file as features and target: numbers as they are, words as one column per category, broken rows set aside."""

from __future__ import annotations

import math
from io import BufferedReader

import numpy as np

from agents.data_manager.quality import TOLERANCE, without_repeats
from agents.data_manager.sources.csv_cells import Profile, all_numbers, is_missing, number, profiled
from agents.data_manager.sources.csv_target import as_target
from agents.data_manager.sources.csv_text import CsvText, Header, Row
from agents.data_manager.table import Findings, Table, Tell, unusable
from contracts.errors import InvalidRequest, Problem
from contracts.request.data import Csv

CATEGORIES = 100
_CURES = {
    "corrupt": "Correct these rows or remove them.",
    "missing": "Fill the gaps, or remove the columns that have them.",
    "non-finite": "Correct these values or remove the rows.",
    "unlabelled": "Label these rows or remove them.",
}


class Broken(Exception):
    """A row that cannot be used: what kind of break, and what exactly."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class CsvTable:
    """One opened file; its digest is that of its bytes."""

    def __init__(self, data: Csv, file: BufferedReader, tell: Tell) -> None:
        self.name = data.path
        self._data = data
        self._text = CsvText(file, tell)
        self.digest = self._text.digest

    def read(self, findings: Findings) -> Table:
        """Two passes: what the columns are, then their values."""
        header = self._text.header(self._data.target)
        profile = profiled(self._text.rows(header), header)
        words = not profile.kinds[header.target].numeric or self._data.task == "classification"
        filling = Filling(header, profile, words=words)
        for row in self._text.rows(header):
            filling.take(row, findings)
        rows = filling.finished(findings)
        _refuse_too_many(findings, profile.rows)
        if not len(rows):
            raise unusable("data.path", "the table has no rows", "Give it some rows below the header.")
        task, y, labels = as_target(filling.targets(), self._data, findings)
        x, features = filling.features()
        return without_repeats(Table(task, {"x": x, "y": y}, labels, features, rows), findings)


class Filling:
    """The values of all sound rows so far."""

    def __init__(self, header: Header, profile: Profile, *, words: bool) -> None:
        self._header, self._target_is_words = header, words
        self._numeric = [at for at in header.features if profile.kinds[at].numeric]
        self._worded = [at for at in header.features if not profile.kinds[at].numeric]
        self._codes: dict[int, dict[str, int]] = {at: {} for at in self._worded}
        self._numbers = np.empty((profile.rows, len(self._numeric)), np.float32)
        self._categories = np.empty((profile.rows, len(self._worded)), np.int32)
        self._targets: list[str] | list[float] = []
        self._rows = np.empty(profile.rows, np.int64)
        self._size = 0

    def take(self, row: Row, findings: Findings) -> None:
        """Keep a row, or note why not."""
        try:
            self._keep(row)
        except Broken as broken:
            findings.add(broken.kind, f"{row}: {broken}", severity="warning")

    def finished(self, findings: Findings) -> np.ndarray:
        """The numbers of the rows kept, once those whose values do not fit into 32 bits are out."""
        fits = np.isfinite(self._numbers[: self._size]).all(axis=1)
        for at in np.flatnonzero(~fits):
            findings.add("non-finite", f"row {self._rows[at]}: a value beyond 3.4e38", severity="warning")
        kept = np.flatnonzero(fits)
        self._numbers, self._categories = self._numbers[kept], self._categories[kept]
        self._targets = [self._targets[at] for at in kept]  # type: ignore[assignment] # one kind or the other
        self._size = len(kept)
        return self._rows[kept]

    def targets(self) -> list[str] | list[float]:
        """The target of every row kept: words, or numbers."""
        return self._targets

    def features(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """All features as float32, columns in the order of the file, and their names."""
        columns: list[np.ndarray] = []
        names: list[str] = []
        for at in self._header.features:
            name = self._header.names[at]
            if at in self._codes:
                categories = sorted(self._codes[at])
                codes = self._categories[:, self._worded.index(at)]
                columns += [(codes == self._codes[at][word]).astype(np.float32) for word in categories]
                names += [f"{name}={word}" for word in categories]
            else:
                columns.append(self._numbers[:, self._numeric.index(at)])
                names.append(name)
        return np.stack(columns, axis=1), tuple(names)

    def _keep(self, row: Row) -> None:
        cells, at = row.cells, self._size
        if len(cells) != len(self._header.names):
            raise Broken("corrupt", f"{len(cells)} cells, the header has {len(self._header.names)}")
        target = self._target(cells[self._header.target])
        chosen = [cells[place] for place in self._numeric]
        values = all_numbers(chosen)
        if values is None:
            values = [self._number(place, cells[place]) for place in self._numeric]
        words = [self._word(place, cells[place]) for place in self._worded]
        with np.errstate(over="ignore"):
            self._numbers[at] = values
        self._categories[at] = words
        self._targets.append(target)  # type: ignore[arg-type] # one kind or the other, see `_target`
        self._rows[at] = row.number
        self._size += 1

    def _target(self, cell: str) -> str | float:
        if is_missing(cell):
            raise Broken("unlabelled", f"no value in {self._header.names[self._header.target]!r}")
        if self._target_is_words:
            value = number(cell)
            return cell.strip() if value is None else _shortest(value)
        return self._number(self._header.target, cell)

    def _number(self, place: int, cell: str) -> float:
        name = self._header.names[place]
        if is_missing(cell):
            raise Broken("missing", f"no value in {name!r}")
        value = number(cell)
        if value is None:
            raise Broken("corrupt", f"{cell[:40]!r} in {name!r} is not a number")
        if not math.isfinite(value):
            raise Broken("non-finite", f"{cell[:40]!r} in {name!r}")
        return value

    def _word(self, place: int, cell: str) -> int:
        name, word, codes = self._header.names[place], cell.strip(), self._codes[place]
        if is_missing(word):
            raise Broken("missing", f"no value in {name!r}")
        if word not in codes and len(codes) == CATEGORIES:
            cure = "Remove the column, or group its values."
            raise unusable("data.path", f"the column {name!r} holds more than {CATEGORIES} different words", cure)
        return codes.setdefault(word, len(codes))


def _shortest(value: float) -> str:
    """`1`, `1.0` and `01` are one label."""
    return str(int(value)) if value.is_integer() else repr(value)


def _refuse_too_many(findings: Findings, rows: int) -> None:
    broken = [kind for kind in _CURES if findings.count(kind)]
    if sum(findings.count(kind) for kind in broken) <= TOLERANCE * rows:
        return
    problems = []
    for kind in broken:
        places = "; ".join(findings.places(kind)[:3])
        message = f"{findings.count(kind)} of {rows} rows are {kind} ({places})"
        problems.append(Problem("data.path", message, f"{_CURES[kind]} Up to {TOLERANCE:.0%} are set aside for you."))
    raise InvalidRequest(problems)
