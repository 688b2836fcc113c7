"""Tables in files: named columns, one of which is the target."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.request.data.source import AutoTask, File
from contracts.request.section import Name


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
