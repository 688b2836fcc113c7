"""From a data section to the opened source that it names."""

from __future__ import annotations

from functools import singledispatch
from io import BufferedReader
from pathlib import Path
from typing import Any

from agents.data_manager.allowed import folder, opened, opened_binary
from agents.data_manager.sources.array_file import ArrayFile
from agents.data_manager.sources.bundled import BundledSource
from agents.data_manager.sources.csv_text import CsvText
from agents.data_manager.sources.generated import GeneratedSource
from agents.data_manager.sources.hdf5 import Hdf5File
from agents.data_manager.sources.image_folder import ImageFiles
from agents.data_manager.sources.json_list import JsonList
from agents.data_manager.sources.jsonl import JsonLines
from agents.data_manager.sources.npz import NpzFile
from agents.data_manager.sources.parquet import ParquetFile
from agents.data_manager.sources.raw import RawFile
from agents.data_manager.sources.table_file import TableFile
from agents.data_manager.sources.workload import OwnRows
from agents.data_manager.table import DataSource, SourceContext
from contracts.request import data as sections
from runtime.home.allowed import within


@singledispatch
def source_of(data: Any, around: SourceContext) -> DataSource:
    """The source that a data section names; raises `InvalidRequest` when it cannot be opened."""
    raise NotImplementedError(f"no source reads {type(data).__name__}")


@source_of.register(sections.Bundled)
def _(data: Any, around: SourceContext) -> DataSource:
    return BundledSource(data)


@source_of.register(sections.Generated)
def _(data: Any, around: SourceContext) -> DataSource:
    return GeneratedSource(data, around.scratch)


@source_of.register
def _(data: sections.WorkloadData, around: SourceContext) -> DataSource:
    return OwnRows(data)


@source_of.register
def _(data: sections.Csv, around: SourceContext) -> DataSource:
    return TableFile(data, CsvText(_text(data, around), around.tell), around.scratch)


@source_of.register
def _(data: sections.Jsonl, around: SourceContext) -> DataSource:
    return TableFile(data, JsonLines(_text(data, around), around.tell), around.scratch)


@source_of.register
def _(data: sections.Json, around: SourceContext) -> DataSource:
    return TableFile(data, JsonList(_text(data, around), around.tell), around.scratch)


@source_of.register
def _(data: sections.Parquet, around: SourceContext) -> DataSource:
    return TableFile(data, ParquetFile(_binary(data, around), around.tell), around.scratch)


@source_of.register
def _(data: sections.Npz, around: SourceContext) -> DataSource:
    file = _binary(data, around, suffix=".npz")
    trusted = within(Path(str(file.name)), around.trusted)
    archive = NpzFile(file, around.scratch, around.tell, trusted=trusted)
    return ArrayFile(data, archive, around.scratch, around.tell)


@source_of.register
def _(data: sections.Hdf5, around: SourceContext) -> DataSource:
    file = Hdf5File(_binary(data, around), around.scratch, around.tell)
    return ArrayFile(data, file, around.scratch, around.tell)


@source_of.register
def _(data: sections.Raw, around: SourceContext) -> DataSource:
    file = RawFile(data, _binary(data, around), around.tell)
    return ArrayFile(data, file, around.scratch, around.tell)


@source_of.register
def _(data: sections.ImageFolder, around: SourceContext) -> DataSource:
    return ImageFiles(data, folder(data.path, around.roots), around)


def _text(data: sections.Tables, around: SourceContext) -> BufferedReader:
    return around.files.enter_context(opened(data.path, around.roots))


def _binary(data: sections.File, around: SourceContext, *, suffix: str = "") -> BufferedReader:
    return around.files.enter_context(opened_binary(data.path, around.roots, suffix=suffix))
