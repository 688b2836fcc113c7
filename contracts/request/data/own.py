"""Rows that a user's own code makes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.request.data.source import Foreign
from contracts.request.section import Name, Options


class WorkloadData(Foreign):
    """Rows from a registered workload's own `data`; a request names it and never carries code."""

    source: Literal["workload"]
    workload: Name
    options: Options = Field(default_factory=dict)
