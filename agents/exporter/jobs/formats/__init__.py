"""One file per format: `write` makes it, `opened` asks it. Found by name; the names are those of `plan.FORMATS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from agents.exporter.jobs.trained import ExportModel

Answer = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Asks a file: columns in, answers out."""


@dataclass(frozen=True)
class FileDetails:
    """What is to be told about a file besides its bytes; `beside` are readable companions by suffix."""

    opset: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)


class Format(Protocol):
    """What a format can do. The same model gives the same bytes, wherever and however often it is written."""

    executable: bool
    """Whether other software runs the file, so that its speed is worth telling."""

    def write(self, trained: ExportModel, quantize: str, path: Path) -> FileDetails:
        """Make the file, or raise `Unexportable`."""
        ...

    def opened(self, path: Path, quantize: str) -> Answer:
        """The file as something to ask; knows nothing but the file."""
        ...


def plain_of(path: Path) -> Path:
    """The path of the full-precision file that a quantised one is made from."""
    return path.with_name(f"{path.name}.plain")


def named(form: str) -> Format:
    """The format of that name, with the libraries it needs."""
    return cast(Format, importlib.import_module(f"{__name__}.{form}"))
