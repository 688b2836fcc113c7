"""A folder with one folder of images per category; every image is judged, brought to one size, and a row."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.source import DataTable, SourceContext, extra, unusable
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
        counts = np.bincount(grey.reshape(-1), minlength=256)
        shares = counts[counts > 0] / grey.size
        return cls(
            min(grey.shape),
            _variance(_laplacian(values)) if min(grey.shape) > 2 else 0.0,
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
        for kind, what, found, least in measures:
            if found < least:
                return kind, f"{what} is {found:.4g}, wanted {least:g}"
        return None


def _laplacian(values: np.ndarray) -> np.ndarray:
    inner = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    found: np.ndarray = around - 4 * inner
    return found


def _variance(values: np.ndarray) -> float:
    total, squares = int(values.sum(dtype=np.int64)), int(np.square(values, dtype=np.int64).sum())
    return (squares * values.size - total * total) / values.size**2


_TOLD = 256
_HELD = 13
"""Bytes of memory per pixel, at least, while an image is judged: its own, its grey value, and that as two numbers."""


class ImageFiles:
    """The images below a folder; their digest is that of their names and bytes. Links are not followed."""

    def __init__(self, data: ImageFolder, folder: Path, around: SourceContext) -> None:
        extra("PIL.Image", "images")
        self.name = data.path
        self._data, self._folder, self._around = data, folder, around
        self._categories = sorted(one.name for one in os.scandir(folder) if _is_folder(one))
        self._files = [*_images(folder, ""), *(f for name in self._categories for f in _images(folder / name, name))]
        if not self._files:
            cure = f"Give each category a folder with images in it ({', '.join(ENDINGS)})."
            raise unusable("data.path", f"there are no images in the folders of {str(folder)!r}", cure)
        self._digests = self._digested()
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
            image = self._opened(file, digest)
        except BrokenImage as broken:
            findings.set_aside("corrupt", f"{file}: {broken}")
            return None
        lack = ImageMeasures.of(np.asarray(image.convert("L"))).lacks(self._data.quality)
        if lack is not None:
            findings.set_aside(lack[0], f"{file}: {lack[1]}")
            return None
        return pixels(image, self._data)

    def _opened(self, file: str, digest: str) -> Any:
        content = (self._folder / file).read_bytes()
        if blake3(content).hexdigest() != digest:
            raise unusable("data.path", f"{file!r} changed while it was read", "Finish writing it, then ask again.")
        scratch, what = self._around.scratch, f"the image {file!r}"
        return decoded(content, lambda pixels: scratch.refuse_beyond(what, "data.path", disk=0, held=pixels * _HELD))

    def _digested(self) -> Sequence[str]:
        found = []
        for number, file in enumerate(self._files):
            found.append(str(blake3((self._folder / file).read_bytes()).hexdigest()))
            self._say(number, len(self._files))
        return found

    def _say(self, number: int, total: int) -> None:
        if number % _TOLD == _TOLD - 1:
            self._around.tell(number + 1, total)


def _images(folder: Path, name: str) -> list[str]:
    """The images in a folder, and in those below it unless it is the topmost, in the order of their names."""
    found = []
    for one in sorted(os.scandir(folder), key=lambda one: one.name):
        called = f"{name}/{one.name}" if name else one.name
        if one.name.startswith("."):
            continue
        if name and _is_folder(one):
            found += _images(folder / one.name, called)
        elif one.name.lower().endswith(ENDINGS) and stat.S_ISREG(one.stat(follow_symlinks=False).st_mode):
            found.append(called)
    return found


def _is_folder(one: os.DirEntry[str]) -> bool:
    return one.is_dir(follow_symlinks=False) and not one.name.startswith(".") and not is_closed(Path(one.path))
