"""Files of arrays by their format: numpy's archive, HDF5, binary records of one length."""

import math
import os
import zipfile
import zlib
from io import BufferedReader
from typing import IO, Any

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import CHUNK, Scratch
from agents.data_manager.source import Tell, digest_of, import_extra, unchanged, unusable
from agents.data_manager.sources.array_file import RawArray
from contracts.request.data import Raw


class UnchangedFile:
    """An opened file and its digest; `checked` is called once it is read."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self.digest = digest_of(file, tell)
        self._unchanged = unchanged(file)
        self._unchanged.__enter__()

    def checked(self, findings: Findings) -> None:
        """Raise when the file was written to while it was read."""
        self._unchanged.__exit__(None, None, None)


class NpzFile(UnchangedFile):
    """An opened archive; with `trusted` its pickles are read, here in this process that ends with the preparation."""

    def __init__(self, file: BufferedReader, scratch: Scratch, tell: Tell, *, trusted: bool) -> None:
        self._scratch, self._trusted = scratch, trusted
        super().__init__(file, tell)
        try:
            self._archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise unusable("data.path", f"this is no npz archive: {error}", "Write it with `numpy.savez`.") from None

    def array(self, name: str, place: str) -> RawArray:
        """The array of that name, unpacked to scratch disk; `place` is the option that named it."""
        names = [member.removesuffix(".npy") for member in self._archive.namelist()]
        if name not in names:
            raise unusable(place, f"there is no array {name!r}", f"Arrays: {', '.join(names[:20])}.")
        try:
            with self._archive.open(f"{name}.npy") as member:
                return MappedArray(self._unpack(name, place, member))
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError) as error:
            cure = "Write the archive again."
            raise unusable(place, f"the array {name!r} cannot be read: {str(error)[:200]}", cure) from None

    def _unpack(self, name: str, place: str, member: IO[bytes]) -> np.ndarray:
        shape, fortran, dtype = _header(member)
        if dtype.hasobject:
            if not self._trusted:
                cure = f"Save {name!r} as numbers or text. Who runs this machine may trust a folder: `trusted_data`."
                what = "holds objects, which are a pickle: loading one runs whatever code is in it"
                raise unusable(place, f"the array {name!r} {what}", cure)
            with self._archive.open(f"{name}.npy") as whole:
                return np.array(np.lib.format.read_array(whole, allow_pickle=True).tolist())
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


class Hdf5File(UnchangedFile):
    """An opened HDF5 file, whose data sets are read by name."""

    def __init__(self, file: BufferedReader, scratch: Scratch, tell: Tell) -> None:
        self._scratch = scratch
        self._h5py = import_extra("h5py", "HDF5")
        super().__init__(file, tell)
        try:
            self._file = self._h5py.File(file, "r")
        except OSError as error:
            raise unusable("data.path", f"this is no HDF5 file that can be read: {error}", "Write it again.") from None

    def array(self, name: str, place: str) -> RawArray:
        """The data set at that path in the file."""
        here: Any = self._file
        for step in name.strip("/").split("/"):
            link = here.get(step, getlink=True) if isinstance(here, self._h5py.Group) else None
            if link is None:
                known = ", ".join(list(here)[:20]) if isinstance(here, self._h5py.Group) else "none below a data set"
                raise unusable(place, f"there is no data set {name!r}", f"Known here: {known}.")
            if isinstance(link, self._h5py.ExternalLink):
                raise unusable(place, f"{name!r} is a link to another file", "Copy the data into this file.")
            if isinstance(link, self._h5py.SoftLink):
                raise unusable(place, f"{name!r} is a link to {link.path!r}", f"Name {link.path!r} itself.")
            here = here[step]
        if not isinstance(here, self._h5py.Dataset):
            raise unusable(place, f"{name!r} is a group", "Name a data set in it.")
        if here.is_virtual or here.external:
            raise unusable(place, f"the values of {name!r} lie in other files", "Copy the data into this file.")
        # To read any part of a chunk all of it is unpacked, and packed it may be next to nothing.
        chunk = math.prod(here.chunks or ()) * here.dtype.itemsize
        self._scratch.refuse_beyond(f"a chunk of {name!r}", place, disk=0, held=chunk)
        return Hdf5Array(here, name, place)


class Hdf5Array:
    """One data set, read portion by portion."""

    def __init__(self, dataset: Any, name: str, place: str) -> None:
        self._dataset, self._name, self._place = dataset, name, place
        self.dtype: np.dtype = dataset.dtype
        self.shape: tuple[int, ...] = dataset.shape

    def rows(self, first: int, last: int) -> np.ndarray:
        """Some rows; raises when they are damaged."""
        try:
            read: np.ndarray = self._dataset[first:last]
        except (OSError, RuntimeError) as error:
            message = f"rows {first + 1} to {last} of {self._name!r} cannot be read: {str(error)[:200]}"
            raise unusable(self._place, message, "Write the file again.") from None
        return read


LONGEST_RECORD = (1 << 31) - 1
"""The longest record that can be described."""


class RawFile(UnchangedFile):
    """An opened file of records of one size, memory-mapped."""

    def __init__(self, data: Raw, file: BufferedReader, tell: Tell) -> None:
        super().__init__(file, tell)
        size = max(0, os.fstat(file.fileno()).st_size - data.header_bytes)
        # The library counts in 32 bits, and what a request asks for may be any length.
        length = sum(np.dtype(part.dtype).itemsize * math.prod(part.shape) for part in data.record)
        if not size // length or length > LONGEST_RECORD:
            cure = "Correct `data.record` and `data.header_bytes`."
            raise unusable(
                "data.record", f"{size} bytes hold no record of {length} bytes (at most {LONGEST_RECORD})", cure
            )
        order = "<" if data.endian == "little" else ">"
        record = np.dtype([(part.name, f"{order}{part.dtype}", part.shape) for part in data.record])
        count, self._left = divmod(size, length)
        self._records = np.memmap(file, record, "r", offset=data.header_bytes, shape=(count,))

    def array(self, name: str, place: str) -> RawArray:
        """The field of that name in every record."""
        return RecordField(self._records, name)

    def checked(self, findings: Findings) -> None:
        """Report a last record that is cut off as a broken row; raise when the file changed while it was read."""
        super().checked(findings)
        if self._left:
            findings.rows += 1
            what = f"the last {self._left} bytes are less than a record of {self._records.dtype.itemsize}"
            findings.set_aside("corrupt", f"row {len(self._records) + 1}: {what}")


class RecordField:
    """One field of all records, read as an array."""

    def __init__(self, records: np.ndarray, name: str) -> None:
        self._records, self._name = records, name
        self.dtype: np.dtype = records.dtype[name].base
        self.shape: tuple[int, ...] = (len(records), *records.dtype[name].shape)

    def rows(self, first: int, last: int) -> np.ndarray:
        """The field in the records from `first` to before `last`."""
        return self._records[first:last][self._name]
