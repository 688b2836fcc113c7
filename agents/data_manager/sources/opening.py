"""From a data section to the opened source that it names, as far as this machine's owner lets requests read files."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from io import BufferedReader
from pathlib import Path
from typing import Any

from agents.data_manager.source import DataSource, SourceContext, Tell, unusable
from agents.data_manager.sources.array_file import ArrayFile
from agents.data_manager.sources.array_formats import Hdf5File, NpzFile, RawFile
from agents.data_manager.sources.builtin_sets import BundledSource, GeneratedSource
from agents.data_manager.sources.image_folder import ImageFiles
from agents.data_manager.sources.table_file import TableFile
from agents.data_manager.sources.table_formats import CsvText, JsonLines, JsonList, ParquetFile
from agents.data_manager.sources.workload import WorkloadRows
from contracts.request import data as sections
from runtime.home.allowed import RequestPath, within

_TEXT_TABLES: dict[type, Callable[[BufferedReader, Tell], CsvText | JsonLines | JsonList]] = {
    sections.Csv: CsvText,
    sections.Jsonl: JsonLines,
    sections.Json: JsonList,
}
_PLACE = "data.path"
_MAGIC = (
    (b"\x80", "a pickle"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "compressed"),
    (b"PAR1", "Parquet"),
    (b"\x89HDF", "HDF5"),
)
_SOURCES = {".npz": "npz", ".parquet": "parquet", ".h5": "hdf5", ".hdf5": "hdf5", ".jsonl": "jsonl", ".json": "json"}


@singledispatch
def source_of(data: Any, around: SourceContext) -> DataSource:
    """The source that a data section names; raises `InvalidRequest` when it cannot be opened.

    Every section has one below: a test holds it, since no request can name another.
    """
    raise TypeError(f"{type(data).__name__} is no data section")


@source_of.register(sections.Bundled)
def _(data: Any, around: SourceContext) -> DataSource:
    return BundledSource(data)


@source_of.register(sections.Generated)
def _(data: Any, around: SourceContext) -> DataSource:
    return GeneratedSource(data, around.scratch)


@source_of.register
def _(data: sections.WorkloadData, around: SourceContext) -> DataSource:
    return WorkloadRows(data)


@source_of.register(sections.Csv | sections.Jsonl | sections.Json)
def _(data: Any, around: SourceContext) -> DataSource:
    file = around.files.enter_context(open_text(data.path, around.roots))
    return TableFile(data, _TEXT_TABLES[type(data)](file, around.tell), around.scratch)


@source_of.register
def _(data: sections.Parquet, around: SourceContext) -> DataSource:
    return TableFile(data, ParquetFile(_binary(data, around), around.tell), around.scratch)


@source_of.register
def _(data: sections.Npz, around: SourceContext) -> DataSource:
    file = _binary(data, around, suffix=".npz")
    trusted = within(Path(str(file.name)), around.trusted)
    return ArrayFile(data, NpzFile(file, around.scratch, around.tell, trusted=trusted), around.scratch, around.tell)


@source_of.register
def _(data: sections.Hdf5, around: SourceContext) -> DataSource:
    file = Hdf5File(_binary(data, around), around.scratch, around.tell)
    return ArrayFile(data, file, around.scratch, around.tell)


@source_of.register
def _(data: sections.Raw, around: SourceContext) -> DataSource:
    return ArrayFile(data, RawFile(data, _binary(data, around), around.tell), around.scratch, around.tell)


@source_of.register
def _(data: sections.ImageFolder, around: SourceContext) -> DataSource:
    return ImageFiles(data, _request_path(data.path).folder(around.roots), around)


def _binary(data: sections.File, around: SourceContext, *, suffix: str = "") -> BufferedReader:
    return around.files.enter_context(_request_path(data.path).opened(around.roots, suffix=suffix))


def open_text(path: str, roots: Sequence[Path]) -> BufferedReader:
    """A text file, opened, once it is known to be allowed; raises `InvalidRequest` with the reason and the cure."""
    file = _request_path(path).opened(roots)
    start = file.peek(4096)[:4096]
    what = next((name for magic, name in _MAGIC if start.startswith(magic)), "binary" if b"\0" in start else "")
    if what:
        file.close()
        cure = _other_source(path) or "Save the table as CSV in UTF-8."
        raise unusable(_PLACE, f"{file.name!r} is {what}, not a text table", cure)
    return file


def _request_path(path: str) -> RequestPath:
    """The path of a section, which is opened where it is allowed; `InvalidRequest` otherwise."""
    cure = _other_source(path) or "Save the table as CSV or Parquet, arrays with `numpy.savez`."
    return RequestPath(path, _PLACE, cure)


def _other_source(path: str) -> str:
    source = _SOURCES.get(Path(path).suffix.lower())
    return f"Write `source: {source}`." if source else ""
