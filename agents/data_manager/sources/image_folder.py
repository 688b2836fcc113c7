"""A folder with one folder of images per category; every image is judged, brought to one size, and a row."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.source import DataTable, SourceContext, import_extra, unusable
from contracts.request.data import ImageFolder, ImageQuality
from runtime.home.allowed import is_closed
from runtime.model.images import ENDINGS, BrokenImage, decoded, pixels


@dataclass(frozen=True)
class ImageMeasures:
    """An image's measures; the units are those of `ImageQuality`."""

    side: int
    sharpness: float
    contrast: float
    complexity: float

    @classmethod
    def of(cls, grey: np.ndarray) -> ImageMeasures:
        """The measures of grey values from 0 to 255, in exact sums until the last division."""
        values = grey.astype(np.int32)
        around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
        counts = np.bincount(grey.reshape(-1), minlength=256)
        shares = counts[counts > 0] / grey.size
        return cls(
            min(grey.shape),
            _variance(around - 4 * values[1:-1, 1:-1]) if min(grey.shape) > 2 else 0.0,
            float(np.sqrt(_variance(values))),
            float(-(shares * np.log2(shares)).sum()),
        )

    def lacks(self, wanted: ImageQuality) -> tuple[str, str] | None:
        """The first thing that an image lacks: the kind of finding, and how much there is of it."""
        measures = (
            ("too-small", "the shorter side", self.side, wanted.min_side),
            ("blurred", "the sharpness", self.sharpness, wanted.min_sharpness),
            ("flat", "the contrast", self.contrast, wanted.min_contrast),
            ("plain", "the complexity", self.complexity, wanted.min_complexity),
        )
        for kind, what, measured, least in measures:
            if measured < least:
                return kind, f"{what} is {measured:.4g}, wanted {least:g}"
        return None


def _variance(values: np.ndarray) -> float:
    total, squares = int(values.sum(dtype=np.int64)), int(np.square(values, dtype=np.int64).sum())
    return (squares * values.size - total * total) / values.size**2


_TOLD = 256
_HELD = 13
"""Bytes of memory per pixel, at least, while an image is judged: its own, its grey value, and that as two numbers."""


class ImageFiles:
    """The images below a folder; their digest is that of their names and bytes. Links are not followed."""

    def __init__(self, data: ImageFolder, folder: Path, around: SourceContext) -> None:
        import_extra("PIL.Image", "images")
        self.name = data.path
        self._data, self._folder, self._around = data, folder, around
        self._categories = sorted(entry.name for entry in os.scandir(folder) if _is_folder(entry))
        self._files = [*_images(folder, ""), *(f for name in self._categories for f in _images(folder / name, name))]
        if not self._files:
            cure = f"Give each category a folder with images in it ({', '.join(ENDINGS)})."
            raise unusable("data.path", f"there are no images in the folders of {str(folder)!r}", cure)
        self._digests: list[str] = []
        for number, file in enumerate(self._files):
            self._digests.append(str(blake3((folder / file).read_bytes()).hexdigest()))
            self._say(number, len(self._files))
        named = (f"{name}\0{digest}\n" for name, digest in zip(self._files, self._digests, strict=True))
        self.digest = str(blake3("".join(named).encode()).hexdigest())

    def read(self, findings: Findings) -> DataTable:
        """One row per sound image: its pixels from 0 to 255, channels first."""
        data = self._data
        shape = (1 if data.colours == "grey" else 3, data.height, data.width)
        what = f"{len(self._files)} images of the shape {shape}"
        self._around.scratch.refuse_beyond(what, "data.path", disk=2 * len(self._files) * math.prod(shape), held=0)
        x = self._around.scratch.column(np.uint8, shape)
        labels = [name for name in self._categories if any(file.startswith(f"{name}/") for file in self._files)]
        codes = {name: code for code, name in enumerate(labels)}
        y: list[int] = []
        names: list[str] = []
        for number, file in enumerate(self._files):
            findings.rows += 1
            category, _, _ = file.rpartition("/")
            row = self._row(file, self._digests[number], findings)
            if row is not None:
                x.append(row[None])
                y.append(codes[category.partition("/")[0]])
                names.append(file)
            self._say(number, len(self._files))
        if len(labels) < 2:
            cure = "Give each category a folder of its own."
            raise unusable("data.path", f"{len(labels)} folder(s) of images are no categories", cure)
        columns = {"x": x.done(), "y": np.array(y, np.int64)}
        return DataTable("classification", columns, tuple(labels), names=names, foreign=True)

    def _row(self, file: str, digest: str, findings: Findings) -> np.ndarray | None:
        """An image as it is trained with, or None once it is set aside."""
        if "/" not in file:
            findings.set_aside("unlabelled", f"{file}: it lies in no category's folder")
            return None
        try:
            image = self._open(file, digest)
        except BrokenImage as broken:
            findings.set_aside("corrupt", f"{file}: {broken}")
            return None
        lack = ImageMeasures.of(np.asarray(image.convert("L"))).lacks(self._data.quality)
        if lack is not None:
            findings.set_aside(lack[0], f"{file}: {lack[1]}")
            return None
        return pixels(image, self._data)

    def _open(self, file: str, digest: str) -> Any:
        content = (self._folder / file).read_bytes()
        if blake3(content).hexdigest() != digest:
            raise unusable("data.path", f"{file!r} changed while it was read", "Finish writing it, then ask again.")
        scratch, what = self._around.scratch, f"the image {file!r}"
        return decoded(content, lambda pixels: scratch.refuse_beyond(what, "data.path", disk=0, held=pixels * _HELD))

    def _say(self, number: int, total: int) -> None:
        if number % _TOLD == _TOLD - 1:
            self._around.tell(number + 1, total)


def _images(folder: Path, name: str) -> list[str]:
    """The images in a folder, and in those below it unless it is the topmost, in the order of their names."""
    names = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        called = f"{name}/{entry.name}" if name else entry.name
        if entry.name.startswith("."):
            continue
        if name and _is_folder(entry):
            names += _images(folder / entry.name, called)
        elif entry.name.lower().endswith(ENDINGS) and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            names.append(called)
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and not is_closed(Path(entry.path))
