"""Binary records of one length, one after the other, laid out as the request says: the file itself does not."""

from __future__ import annotations

import math
import os
from io import BufferedReader

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.sources.array_file import RawArray
from agents.data_manager.sources.whole import digest_of, unchanged
from agents.data_manager.table import Tell, unusable
from contracts.request.data import Raw

LONGEST = (1 << 31) - 1
"""The longest record that can be described."""


class RawFile:
    """An opened file of records of one size, memory-mapped."""

    def __init__(self, data: Raw, file: BufferedReader, tell: Tell) -> None:
        self.digest = digest_of(file, tell)
        self._unchanged = unchanged(file)
        self._unchanged.__enter__()
        size = max(0, os.fstat(file.fileno()).st_size - data.header_bytes)
        # The library counts in 32 bits, and what a request asks for may be any length.
        length = sum(np.dtype(part.dtype).itemsize * math.prod(part.shape) for part in data.record)
        if not size // length or length > LONGEST:
            cure = "Correct `data.record` and `data.header_bytes`."
            raise unusable("data.record", f"{size} bytes hold no record of {length} bytes (at most {LONGEST})", cure)
        order = "<" if data.endian == "little" else ">"
        record = np.dtype([(part.name, f"{order}{part.dtype}", part.shape) for part in data.record])
        count, self._left = divmod(size, length)
        self._records = np.memmap(file, record, "r", offset=data.header_bytes, shape=(count,))

    def array(self, name: str, place: str) -> RawArray:
        """The field of that name in every record."""
        return Field(self._records, name)

    def checked(self, findings: Findings) -> None:
        """Report a last record that is cut off as a broken row; raise when the file changed while it was read."""
        self._unchanged.__exit__(None, None, None)
        if self._left:
            findings.rows += 1
            what = f"the last {self._left} bytes are less than a record of {self._records.dtype.itemsize}"
            findings.set_aside("corrupt", f"row {len(self._records) + 1}: {what}")


class Field:
    """One field of all records, read as an array."""

    def __init__(self, records: np.ndarray, name: str) -> None:
        self._records, self._name = records, name
        self.dtype: np.dtype = records.dtype[name].base
        self.shape: tuple[int, ...] = (len(records), *records.dtype[name].shape)

    def rows(self, first: int, last: int) -> np.ndarray:
        """The field in the records from `first` to before `last`."""
        found: np.ndarray = self._records[first:last][self._name]
        return found
