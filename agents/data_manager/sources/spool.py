"""Blocks kept on the scratch disk, so that the pass that needs their values does not read the foreign file again."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from agents.data_manager.sources.blocks import Cells, RowBlock
from agents.data_manager.sources.cells import NestedCell, finite


class Spool:
    """Blocks that are written once and read once, and counted; columns of nothing but finite numbers stay numbers."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.rows = 0

    def kept(self, blocks: Iterator[RowBlock]) -> Iterator[RowBlock]:
        """The same blocks, written as they pass; what was found to be numbers is passed on as such."""
        for block in blocks:
            passed = RowBlock(
                block.first, block.size, [_numbers(one) for one in block.columns], block.broken, block.lines
            )
            columns = [_packed(one) for one in passed.columns]
            # Only this process reads what it wrote here itself.
            marshal.dump((block.first, block.size, columns, dict(block.broken), list(block.lines)), self._file)
            self.rows += block.size
            yield passed

    def again(self) -> Iterator[RowBlock]:
        """Read all blocks that were kept again, in their order."""
        self._file.flush()
        self._file.seek(0)
        while True:
            try:
                first, size, columns, broken, lines = marshal.load(self._file)  # noqa: S302 - our own file
            except EOFError:
                return
            yield RowBlock(first, size, [_unpacked(one) for one in columns], broken, lines)


def _numbers(cells: Cells) -> Cells:
    found = finite(cells)
    return cells if found is None else found


def _packed(cells: Cells) -> Any:
    if isinstance(cells, np.ndarray):
        return cells.astype(np.float64).tobytes()
    return [(cell.what,) if isinstance(cell, NestedCell) else cell for cell in cells]


def _unpacked(packed: Any) -> Cells:
    if isinstance(packed, bytes):
        return np.frombuffer(packed, np.float64)
    return [NestedCell(*cell) if isinstance(cell, tuple) else cell for cell in packed]
