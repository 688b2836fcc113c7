"""Where rows come from, what is expected of them and how they are split. Reading them is the data manager's work."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.request.data.arrays import Arrays, Hdf5, Npz, Part, Raw
from contracts.request.data.bundled import BreastCancer, Diabetes, Digits, Iris, Wine
from contracts.request.data.folders import ImageFolder, ImageQuality
from contracts.request.data.generated import Blobs, Circles, Images, Tokens
from contracts.request.data.own import WorkloadData
from contracts.request.data.source import File, Foreign, Source, Synthetic, Task
from contracts.request.data.split import Split
from contracts.request.data.tables import Csv, Json, Jsonl, Parquet, Table

Bundled = Digits | BreastCancer | Wine | Iris | Diabetes
Generated = Blobs | Circles | Images | Tokens
Tables = Csv | Json | Jsonl | Parquet
Data = Annotated[
    Bundled | Generated | Tables | Npz | Hdf5 | Raw | ImageFolder | WorkloadData,
    Field(discriminator="source"),
]

__all__ = [
    "Arrays",
    "Blobs",
    "BreastCancer",
    "Bundled",
    "Circles",
    "Csv",
    "Data",
    "Diabetes",
    "Digits",
    "File",
    "Foreign",
    "Generated",
    "Hdf5",
    "ImageFolder",
    "ImageQuality",
    "Images",
    "Iris",
    "Json",
    "Jsonl",
    "Npz",
    "Parquet",
    "Part",
    "Raw",
    "Source",
    "Split",
    "Synthetic",
    "Table",
    "Tables",
    "Task",
    "Tokens",
    "Wine",
    "WorkloadData",
]
