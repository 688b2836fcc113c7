"""A wish for a fork as it comes in with a command, read into what the genesis is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidInput
from contracts.session import SessionState
from runtime.fork.changes import Runs, training_rows
from runtime.fork.genesis import ForkRequest
from runtime.log.row_names import RowNames

STEP = "Give the grid step at which it begins."


def read_fork(body: Mapping[str, Any], parent: SessionState, blobs: DirectoryBlobs) -> ForkRequest:
    """`step`, `segment`, `set` and `without`; `InvalidInput` names the first of these that cannot be meant."""
    step, segment, changes = body.get("step"), body.get("segment"), body.get("set") or {}
    for name, value in (("step", step), ("segment", 1 if segment is None else segment)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InvalidInput(f"{name} is {value!r}, not a whole number.", cure=STEP, path=name)
    if not isinstance(changes, Mapping):
        raise InvalidInput(f"set is {changes!r}, not values by path.", cure='Send {"set": {"a.b": 1}}.', path="set")
    return ForkRequest(int(step or 0), segment, dict(changes), _without(body.get("without") or (), parent, blobs))


def _without(named: Any, parent: SessionState, blobs: DirectoryBlobs) -> Runs:
    if isinstance(named, Mapping):
        named = [one for one in blobs.get(str(named.get("blob"))).decode().splitlines() if one.strip()]
    if not named or parent.dataset is None:
        return ()
    if isinstance(named, str) or not all(isinstance(one, str) for one in named):
        message = "without is neither the names of rows nor a blob that lists them."
        raise InvalidInput(message, cure='Send {"without": ["train:3", "17-20"]}.', path="without")
    return training_rows(named, RowNames(parent.dataset, blobs), parent.dataset.splits["train"])
