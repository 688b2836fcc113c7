"""What a session begins with: weights that a request names, kept once in the store, and what a fork inherits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import orjson

from bus.blobs import DirectoryBlobs, digest_of
from contracts.errors import InvalidRequest, Problem
from contracts.fork import Evaluated, Rows
from contracts.session import SessionState
from runtime.home.allowed import RequestPath
from runtime.jobs.job import job
from runtime.jobs.resources import refuse_beyond
from runtime.log import retention

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.jobs.children import Children


LONGEST_LIST = 2000
"""Evaluations and runs of rows that a genesis holds by itself."""


class ListStore(Protocol):
    """Where lists are kept that are too long for an event: a store of blobs, or something that only reads one."""

    def get(self, digest: str) -> bytes:
        """The bytes under a digest."""
        ...

    def put(self, content: bytes) -> str:
        """The digest of the bytes, which are kept."""
        ...


@dataclass(frozen=True)
class InheritedPlan:
    """The control metric up to the fork, and the training rows without which it goes on."""

    evaluations: tuple[tuple[int, float], ...] = ()
    without: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, session: SessionState, blobs: ListStore) -> Self:
        """As the genesis says; `NotFound` or `NotVerified` when what it had no room for is not in the store."""
        fork = session.fork
        if fork is None:
            return cls()
        evaluations, without = fork.evaluations, fork.without
        if fork.more is not None:
            listed = orjson.loads(blobs.get(fork.more))
            evaluations = [Evaluated.model_validate(one) for one in listed["evaluations"]]
            without = [Rows.model_validate(one) for one in listed["without"]]
        return cls(tuple((one.step, one.value) for one in evaluations), tuple((one.first, one.last) for one in without))

    def placed(self, blobs: ListStore) -> dict[str, Any]:
        """The fields of `Fork` that hold it, once what is too long for an event is in the store."""
        evaluations = [Evaluated(step=step, value=value) for step, value in self.evaluations]
        without = [Rows(first=first, last=last) for first, last in self.without]
        found: dict[str, Any] = {"rows_without": sum(one.last - one.first + 1 for one in without), "more": None}
        if len(evaluations) + len(without) <= LONGEST_LIST:
            return found | {"evaluations": evaluations, "without": without}
        listed = {
            "evaluations": [one.model_dump(mode="json") for one in evaluations],
            "without": [one.model_dump(mode="json") for one in without],
        }
        digest = blobs.put(orjson.dumps(listed, option=orjson.OPT_SORT_KEYS))
        return found | {"evaluations": [], "without": [], "more": digest}


def plan_of(session: SessionState, inherited: InheritedPlan, segments: int | None = None) -> dict[str, Any]:
    """The plan with so many segments (or all), in the form of `runtime.engine.plan.Plan.from_json`."""
    return {
        "request": session.request,
        "resolved": session.training.claim.resolved if session.training.claim else {},
        "changes": session.training.changes(segments),
        "begins": session.training.begins,
        "without": inherited.without,
    }


WHERE = "model.init"
INSTEAD = "Save the tensors alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."


async def bring_weights(
    request: Mapping[str, Any], roots: Sequence[Path], blobs: DirectoryBlobs, session: str, children: Children
) -> str | None:
    """Have a child keep what a request's `model.init` names, for a session; the blob's digest, None when it has none.

    `InvalidRequest` when requests may not read the file, or it holds no tensors.
    """
    path = request["model"].get("init")
    if path is None:
        return None
    return await children.run(keep_weights, NamedWeights(path, tuple(roots), blobs.root, session))


@dataclass(frozen=True)
class NamedWeights:
    """A file of weights that a request names, the folders that requests may read, and the store that keeps them."""

    path: str
    roots: Sequence[Path]
    blobs: Path
    session: str


@job(purpose="prepare")
def keep_weights(named: NamedWeights) -> str:
    """The digest of the blob in which the bytes of the file are kept from now on."""
    import safetensors.torch
    from safetensors import SafetensorError

    path, blobs = named.path, DirectoryBlobs(named.blobs)
    with RequestPath(path, WHERE, INSTEAD).opened(named.roots) as file:
        size = os.fstat(file.fileno()).st_size
        refuse_beyond(f"the file {path!r}", WHERE, blobs.root, disk=size, held=size)
        data = file.read()
    try:
        safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise InvalidRequest([Problem(WHERE, f"{path!r} is no safetensors file ({error})", INSTEAD)]) from None
    # Marked as used first: a session that deletes the same bytes then leaves them in place.
    retention.hold_blob(blobs.root, digest_of(data), named.session)
    return blobs.put(data)


def initial_tensors(blobs: Path, initial: str | None) -> dict[str, Tensor] | None:
    """In a job: the tensors to begin with, verified; None where a session draws its own."""
    if initial is None:
        return None
    import safetensors.torch

    data = DirectoryBlobs(blobs).get(initial)
    # In memory of their own: safetensors gives them out unaligned, and bits may depend on that.
    return {name: one.clone() for name, one in safetensors.torch.load(data).items()}
