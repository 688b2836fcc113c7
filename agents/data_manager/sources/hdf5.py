"""Data sets of an HDF5 file. Links to other files are refused, because those files were not allowed."""

from __future__ import annotations

import math
from io import BufferedReader
from typing import Any

import numpy as np

from agents.data_manager.extras import extra
from agents.data_manager.findings import Findings
from agents.data_manager.scratch import Scratch
from agents.data_manager.sources.array_file import RawArray
from agents.data_manager.sources.whole import digest_of, unchanged
from agents.data_manager.table import Tell, unusable


class Hdf5File:
    """An opened HDF5 file, whose data sets are read by name."""

    def __init__(self, file: BufferedReader, scratch: Scratch, tell: Tell) -> None:
        self._scratch = scratch
        self._h5py = extra("h5py", "HDF5")
        self.digest = digest_of(file, tell)
        self._unchanged = unchanged(file)
        self._unchanged.__enter__()
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
        return DataSet(here, name, place)

    def checked(self, findings: Findings) -> None:
        """Raise when the file was written to while it was read."""
        self._unchanged.__exit__(None, None, None)


class DataSet:
    """One data set, read portion by portion."""

    def __init__(self, found: Any, name: str, place: str) -> None:
        self._found, self._name, self._place = found, name, place
        self.dtype: np.dtype = found.dtype
        self.shape: tuple[int, ...] = found.shape

    def rows(self, first: int, last: int) -> np.ndarray:
        """Some rows; raises when they are damaged."""
        try:
            read: np.ndarray = self._found[first:last]
        except (OSError, RuntimeError) as error:
            message = f"rows {first + 1} to {last} of {self._name!r} cannot be read: {str(error)[:200]}"
            raise unusable(self._place, message, "Write the file again.") from None
        return read
