"""Numpy's archive of arrays, unpacked to the scratch disk portion by portion. Objects in it are pickles."""

from __future__ import annotations

import math
import zipfile
import zlib
from io import BufferedReader
from typing import IO, Any

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import CHUNK, Scratch
from agents.data_manager.sources.array_file import RawArray
from agents.data_manager.sources.whole import digest_of, unchanged
from agents.data_manager.table import Tell, unusable


class NpzFile:
    """An opened archive; with `trusted` its pickles are read, here in this process that ends with the preparation."""

    def __init__(self, file: BufferedReader, scratch: Scratch, tell: Tell, *, trusted: bool) -> None:
        self._scratch, self._trusted = scratch, trusted
        self.digest = digest_of(file, tell)
        self._unchanged = unchanged(file)
        self._unchanged.__enter__()
        try:
            self._archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise unusable("data.path", f"this is no npz archive: {error}", "Write it with `numpy.savez`.") from None

    def array(self, name: str, place: str) -> RawArray:
        """The array of that name, unpacked to scratch disk; `place` is the option that named it."""
        names = [one.removesuffix(".npy") for one in self._archive.namelist()]
        if name not in names:
            raise unusable(place, f"there is no array {name!r}", f"Arrays: {', '.join(names[:20])}.")
        try:
            with self._archive.open(f"{name}.npy") as member:
                return MappedArray(self._unpacked(name, place, member))
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError) as error:
            cure = "Write the archive again."
            raise unusable(place, f"the array {name!r} cannot be read: {str(error)[:200]}", cure) from None

    def checked(self, findings: Findings) -> None:
        """Raise when the archive was written to while it was read."""
        self._unchanged.__exit__(None, None, None)

    def _unpacked(self, name: str, place: str, member: IO[bytes]) -> np.ndarray:
        shape, fortran, dtype = _header(member)
        if dtype.hasobject:
            return self._objects(name, place)
        if min(shape, default=0) < 0:
            raise ValueError(f"it has the shape {shape}")
        size = math.prod(shape) * dtype.itemsize
        self._scratch.refuse_beyond(f"the array {name!r}", place, disk=size, held=0)
        if not size:
            return np.empty(shape, dtype)
        path, left = self._scratch.file(), size
        with path.open("wb") as file:
            while left and (piece := member.read(min(left, CHUNK))):
                file.write(piece)
                left -= len(piece)
        if left or member.read(1):
            raise ValueError("it has more or fewer bytes than its shape says")
        return np.memmap(path, dtype, "r", shape=shape, order="F" if fortran else "C")

    def _objects(self, name: str, place: str) -> np.ndarray:
        if not self._trusted:
            cure = f"Save {name!r} as numbers or text. Who runs this machine may trust a folder: `trusted_data`."
            message = f"the array {name!r} holds objects, which are a pickle: loading one runs whatever code is in it"
            raise unusable(place, message, cure)
        with self._archive.open(f"{name}.npy") as member:
            found = np.lib.format.read_array(member, allow_pickle=True)
        values: Any = found.tolist()
        return np.array(values)


class MappedArray:
    """An array that was unpacked to a file on scratch disk and is read from there."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.dtype = array.dtype
        self.shape: tuple[int, ...] = array.shape

    def rows(self, first: int, last: int) -> np.ndarray:
        """The rows from `first` to before `last`."""
        return self._array[first:last]


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    return shape, fortran, dtype
