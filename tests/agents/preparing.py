"""A bench on which datasets are prepared in this process, and what tests ask of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agents.data_manager.jobs.prepare import prepare
from contracts.data_manager import DatasetPrepared, DatasetRejected
from runtime.engine.dataset import Dataset
from runtime.node.capabilities import PreparationOrder


class Bench:
    """The job, run here: what it is given, what it answers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trusted: list[str] = []
        self.store = root / "home" / "blobs" / "datasets"

    def prepare(self, data: dict[str, Any]) -> DatasetPrepared | DatasetRejected | None:
        return prepare(PreparationOrder(data, self.store, [self.root], self.trusted, ()), self.tell)

    def tell(self, done: int, total: int) -> None:
        """How many of all rows were read."""

    def prepared(self, data: dict[str, Any]) -> DatasetPrepared:
        said = self.prepare(data)
        assert isinstance(said, DatasetPrepared), said
        return said

    def rejected(self, data: dict[str, Any]) -> list[dict[str, str]]:
        said = self.prepare(data)
        assert isinstance(said, DatasetRejected), said
        return said.problems

    def csv(self, text: str | bytes, name: str = "table.csv") -> dict[str, Any]:
        path = self.root / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return {"source": "csv", "path": str(path), "target": "kind"}

    def beside(self, said: DatasetPrepared, name: str) -> list[dict[str, Any]]:
        """The lines of a list that lies beside the columns."""
        place = self.store / said.root / name
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []

    def dataset(self, said: DatasetPrepared) -> Dataset:
        return Dataset.open(self.store / said.root)


def table(rows: int = 40, **cells: str) -> str:
    """Lines of a sound table; `row7="..."` puts another line in the place of row 7."""
    lines = ["length,width,kind"]
    lines += [cells.get(f"row{n}", f"{n}.5,{n * n},{'even' if n % 2 == 0 else 'odd'}") for n in range(1, rows + 1)]
    return "\n".join(lines) + "\n"


def finding(said: DatasetPrepared, kind: str) -> Any:
    return next((one for one in said.findings if one.kind == kind), None)
