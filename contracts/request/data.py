"""Where rows come from, what is expected of them and how they are split. Reading them is the data manager's work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from contracts.request.section import AutoFlag, DataTask, Name, Options, Real, Section, Whole, refused


class Split(Section):
    """The shares of the three splits, or `folds` of equal size of which number `fold` (from 0) validates.

    `group` names a column whose values never meet in two splits, `time` one by which the latest rows test and those
    before them validate; neither is a feature then. The split has a seed of its own, so that sessions with different
    training seeds share one prepared dataset. With `folds`, train and val follow from them, and only a `test` that is
    written out is held back.
    """

    train: Real = Field(0.8, gt=0, lt=1)
    val: Real = Field(0.1, gt=0, lt=1)
    test: Real = Field(0.1, ge=0, lt=1)
    stratify: AutoFlag = "auto"
    group: Name | None = None
    time: Name | None = None
    folds: Whole | None = Field(None, ge=2, le=1000)
    fold: Whole = Field(0, ge=0, lt=1000)
    seed: Whole = Field(0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _folds_give_the_shares(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(folds := raw.get("folds"), int) or folds < 2:
            return raw
        test = raw.get("test", 0.0)
        if not isinstance(test, int | float):
            return raw
        val = (1 - test) / folds
        return {"test": test, "val": val, "train": 1 - test - val, **raw}

    @model_validator(mode="after")
    def _is_whole(self) -> Split:
        total = math.fsum((self.train, self.val, self.test))
        if abs(total - 1) > 1e-6:
            raise refused(f"train, val and test add up to {total:g}", "Choose shares that add up to 1.")
        if self.folds is None and self.fold:
            raise refused(f"fold {self.fold} of no folds", "Say how many `folds` there are.")
        if self.folds is not None and self.fold >= self.folds:
            raise refused(f"there is no fold {self.fold}", f"Write a fold from 0 to {self.folds - 1}.")
        if self.folds is not None and abs(self.val * self.folds - (1 - self.test)) > 1e-6:
            cure = "Leave `train` and `val` out: they follow from `folds`."
            raise refused(f"{self.folds} folds do not validate with {self.val:g}", cure)
        if self.time and (self.group or self.folds or self.stratify is True):
            raise refused("a split by time has no groups, folds or strata", "Leave those or `time` out.")
        return self


AutoTask = Literal["auto", "classification", "regression"]
Path = Annotated[str, Field(min_length=1, max_length=4096)]


class Synthetic(Section):
    """Rows made for rare classes: between a row of the class and one of its `neighbours`, in the training split only.

    Every class is filled up to `share` of the rows of the largest; 0 makes none.
    """

    share: Real = Field(0.0, ge=0, le=1)
    neighbours: Whole = Field(5, ge=1, le=100)
    seed: Whole = Field(0, ge=0, lt=2**63)


HOW_BATCHES_COME = ("workers", "pin_memory")
"""Options that change neither a dataset nor a bit of what is trained on it."""


class Source(Section):
    """What every source has; `known_task` is None where only the rows can tell.

    `workers` threads make the batches of the training ahead: 0 makes each when it is wanted. With `pin_memory` batches
    of a dataset that does not fit on a GPU travel to it from locked memory, while it computes. The bits are the same.
    """

    known_task: ClassVar[DataTask | None] = None
    images: ClassVar[bool] = False
    split: Split = Split()
    synthetic: Synthetic = Synthetic()
    workers: Whole = Field(0, ge=0, le=16)
    pin_memory: bool = False

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """The genesis does not say what no session had before, so that of a request without it is the same bytes."""
        values: dict[str, object] = write(self)
        return {name: value for name, value in values.items() if value or name not in HOW_BATCHES_COME}


class Foreign(Source):
    """Rows from outside: up to the share `tolerance` of them may be broken and is set aside; beyond it is refused."""

    tolerance: Real = Field(0.05, ge=0, le=0.5, description="The share of rows that may be set aside.")


class File(Foreign):
    """Rows from the disk. Equal rows count as broken ones, unless they are the data and stay: `duplicates: keep`."""

    path: Path
    duplicates: Literal["set-aside", "keep"] = "set-aside"


class Digits(Source):
    """1797 hand-written digits of 8x8 pixels, bundled with scikit-learn."""

    known_task: ClassVar[DataTask | None] = "classification"
    images: ClassVar[bool] = True
    source: Literal["digits"]


class BreastCancer(Source):
    """569 tumours with 30 features, two classes."""

    known_task: ClassVar[DataTask | None] = "classification"
    source: Literal["breast_cancer"]


class Wine(Source):
    """178 wines with 13 features, three classes."""

    known_task: ClassVar[DataTask | None] = "classification"
    source: Literal["wine"]


class Iris(Source):
    """150 irises with 4 features, three classes."""

    known_task: ClassVar[DataTask | None] = "classification"
    source: Literal["iris"]


class Diabetes(Source):
    """442 patients with 10 features and the progression of their disease."""

    known_task: ClassVar[DataTask | None] = "regression"
    source: Literal["diabetes"]


class Blobs(Source):
    """Generated: one Gaussian cloud per class."""

    known_task: ClassVar[DataTask | None] = "classification"
    source: Literal["blobs"]
    rows: Whole = Field(1000, ge=30, le=100_000_000)
    features: Whole = Field(2, ge=1, le=100_000)
    classes: Whole = Field(3, ge=2, le=10_000)
    spread: Real = Field(1.0, gt=0, le=1000)
    seed: Whole = Field(0, ge=0, lt=2**63)


class Circles(Source):
    """Generated: two circles, one inside the other, that no straight line separates."""

    known_task: ClassVar[DataTask | None] = "classification"
    source: Literal["circles"]
    rows: Whole = Field(1000, ge=30, le=100_000_000)
    noise: Real = Field(0.1, ge=0, le=10)
    factor: Real = Field(0.5, gt=0, lt=1)
    seed: Whole = Field(0, ge=0, lt=2**63)


class Images(Source):
    """Generated: a coarse pattern per class, shifted about and under noise."""

    known_task: ClassVar[DataTask | None] = "classification"
    images: ClassVar[bool] = True
    source: Literal["images"]
    rows: Whole = Field(1000, ge=30, le=100_000_000)
    height: Whole = Field(16, ge=4, le=4096)
    width: Whole = Field(16, ge=4, le=4096)
    channels: Whole = Field(1, ge=1, le=64)
    classes: Whole = Field(10, ge=2, le=10_000)
    noise: Real = Field(0.3, ge=0, le=100)
    seed: Whole = Field(0, ge=0, lt=2**63)


class Tokens(Source):
    """Generated: rows of `length` tokens, each following from one of the two before it but for a share of `noise`."""

    known_task: ClassVar[DataTask | None] = "sequences"
    source: Literal["tokens"]
    rows: Whole = Field(1000, ge=30, le=100_000_000)
    length: Whole = Field(32, ge=4, le=65_536)
    vocabulary: Whole = Field(32, ge=2, le=1_000_000)
    noise: Real = Field(0.1, ge=0, le=1)
    seed: Whole = Field(0, ge=0, lt=2**63)


class Table(File):
    """Rows of named columns: all but the target and the ignored are features; words become a feature per category."""

    target: Name
    task: AutoTask = "auto"
    ignore: tuple[Name, ...] = Field((), max_length=10_000)


class Csv(Table):
    """Lines of cells below a header line."""

    source: Literal["csv"]


class Jsonl(Table):
    """One JSON object per line."""

    source: Literal["jsonl"]


class Json(Table):
    """One JSON list of objects."""

    source: Literal["json"]


class Parquet(Table):
    """One Parquet file; needs the extra `data`."""

    source: Literal["parquet"]


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


Side = Annotated[Whole, Field(ge=1, le=4096)]


class ImageQuality(Section):
    """What an image must have to be used; what falls short counts as broken. All are judged before it is resized.

    `min_side` in pixels; `min_sharpness` is the variance of the Laplacian of its grey values (0 to 255),
    `min_contrast` their standard deviation, `min_complexity` their entropy in bits (0 to 8).
    """

    min_side: Whole = Field(1, ge=1, le=100_000)
    min_sharpness: Real = Field(0.0, ge=0, le=1e6)
    min_contrast: Real = Field(0.0, ge=0, le=255)
    min_complexity: Real = Field(0.0, ge=0, le=8)


class ImageFolder(File):
    """Each folder in `path` is a category, each image in it a row of `height` x `width` pixels; needs the extra `data`.

    Images of another size are resized, and cropped at the centre where their sides have another ratio.
    """

    known_task: ClassVar[DataTask | None] = "classification"
    images: ClassVar[bool] = True
    source: Literal["image_folder"]
    height: Side = 32
    width: Side = 32
    colours: Literal["grey", "rgb"] = "rgb"
    quality: ImageQuality = ImageQuality()


class WorkloadData(Foreign):
    """Rows from a registered workload's own `data`; a request names it and never carries code."""

    source: Literal["workload"]
    workload: Name
    options: Options = Field(default_factory=dict)


Bundled = Digits | BreastCancer | Wine | Iris | Diabetes
Generated = Blobs | Circles | Images | Tokens
Tables = Csv | Json | Jsonl | Parquet
Data = Annotated[
    Bundled | Generated | Tables | Npz | Hdf5 | Raw | ImageFolder | WorkloadData,
    Field(discriminator="source"),
]
