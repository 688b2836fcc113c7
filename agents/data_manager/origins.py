"""What the source calls the rows of each split, kept as blobs: the rows themselves do not know where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from agents.data_manager.quality import Places
from agents.data_manager.scratch import Scratch
from agents.data_manager.table import DataTable
from bus.blobs import DirectoryBlobs


def kept(blobs: DirectoryBlobs, table: DataTable, places: Places, scratch: Scratch) -> dict[str, Any]:
    """The fields of `contracts.data_manager.Origins`, once everything that it names is in the store."""
    named = {split: blobs.put(_listed(table, chosen, scratch.file()), move=True) for split, chosen in places.items()}
    return {"called": "file" if table.names else "row", "blobs": named}


def _listed(table: DataTable, chosen: np.ndarray, file: Path) -> Path:
    if table.names:
        file.write_bytes(b"".join(orjson.dumps(table.names[place]) + b"\n" for place in chosen))
    else:
        numbers = table.rows[chosen] if len(table.rows) else chosen + 1
        numbers.astype("<i8").tofile(file)
    return file
