"""Arrays in files: one entry per row in each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from contracts.request.data.source import AutoTask, File
from contracts.request.section import Name, Section, Whole, refused

Size = Annotated[Whole, Field(ge=1, le=1 << 24)]


class Arrays(File):
    """Arrays `x` and `y` by name; with `pixels` the rows of `x` are images, and how their axes are ordered."""

    x: Name = "x"
    y: Name = "y"
    task: AutoTask = "auto"
    pixels: Literal["none", "hw", "hwc", "chw"] = "none"


class Npz(Arrays):
    """Numpy's archive of arrays; arrays of objects are pickles, read only where the operator trusts the folder."""

    source: Literal["npz"]


class Hdf5(Arrays):
    """Data sets of an HDF5 file, by their paths in it; needs the extra `data`."""

    source: Literal["hdf5"]


class Part(Section):
    """One field of a record."""

    name: Name
    dtype: Literal["u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
    shape: tuple[Size, ...] = Field((), max_length=8)


class Raw(Arrays):
    """Binary records of one length, one after the other behind a header; `record` names the fields in their order."""

    source: Literal["raw"]
    record: tuple[Part, ...] = Field(min_length=2, max_length=1000)
    endian: Literal["little", "big"] = "little"
    header_bytes: Whole = Field(0, ge=0, le=1 << 30)

    @model_validator(mode="after")
    def _names_are_known(self) -> Raw:
        names = [part.name for part in self.record]
        if len(set(names)) < len(names):
            raise refused("two fields of the record have one name", "Give each field a name of its own.")
        wanted = [name for name in (self.x, self.y, self.split.group, self.split.time) if name]
        if absent := [name for name in wanted if name not in names]:
            raise refused(f"the record has no field {absent[0]!r}", f"Fields: {', '.join(names)}.")
        return self
