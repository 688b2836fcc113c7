"""Opens the files and folders that a data section names, as far as this machine's owner lets requests read them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

from agents.data_manager.table import unusable
from runtime.home.allowed import RequestPath

_PLACE = "data.path"
_MAGIC = (
    (b"\x80", "a pickle"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "compressed"),
    (b"PAR1", "Parquet"),
    (b"\x89HDF", "HDF5"),
)
_SOURCES = {".npz": "npz", ".parquet": "parquet", ".h5": "hdf5", ".hdf5": "hdf5", ".jsonl": "jsonl", ".json": "json"}


def opened(path: str, roots: Sequence[Path]) -> BufferedReader:
    """A text file, opened, once it is known to be allowed; raises `InvalidRequest` with the reason and the cure."""
    file = opened_binary(path, roots)
    start = file.peek(4096)[:4096]
    what = next((name for magic, name in _MAGIC if start.startswith(magic)), "binary" if b"\0" in start else "")
    if what:
        file.close()
        cure = _other_source(path) or "Save the table as CSV in UTF-8."
        raise unusable(_PLACE, f"{file.name!r} is {what}, not a text table", cure)
    return file


def opened_binary(path: str, roots: Sequence[Path], *, suffix: str = "") -> BufferedReader:
    """Any file that is allowed, opened; `suffix` is one that pickles have and this format shares."""
    return _named(path).opened(roots, suffix=suffix)


def folder(path: str, roots: Sequence[Path]) -> Path:
    """The folder, resolved, when it lies in an allowed one; `InvalidRequest` otherwise."""
    return _named(path).folder(roots)


def _named(path: str) -> RequestPath:
    return RequestPath(
        path, _PLACE, _other_source(path) or "Save the table as CSV or Parquet, arrays with `numpy.savez`."
    )


def _other_source(path: str) -> str:
    source = _SOURCES.get(Path(path).suffix.lower())
    return f"Write `source: {source}`." if source else ""
