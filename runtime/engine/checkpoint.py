"""State as bytes and back: safetensors with the state root inside, checked on every load. It opens no files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from contracts.errors import NotVerified
from contracts.request import Request
from runtime.engine import state
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner

KEY = "stigmergy"


class CheckpointForm(TypedDict):
    """What a file says of the state in it, as JSON."""

    step: int
    state_root: str
    weights_digest: str
    aliases: dict[str, str]


@dataclass(frozen=True)
class CheckpointContent:
    """Unpacked state whose root has been recomputed."""

    tensors: Mapping[str, Tensor]
    step: int
    state_root: str
    weights_digest: str
    aliases: Mapping[str, str] = field(default_factory=dict)


def seal(tensors: Mapping[str, Tensor], step: int, aliases: Mapping[str, str] | None = None) -> CheckpointContent:
    """Name staged state by its digests."""
    return CheckpointContent(tensors, step, *_roots(tensors), dict(aliases or {}))


def _roots(tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """The root over all state, and that over parameters and buffers, which windows carry."""
    found = {name: state.leaf(name, tensors[name]) for name in sorted(tensors)}
    return state.root_of(found.values()), state.root_of(found[name] for name in found if name.startswith("model."))


def pack(checkpoint: CheckpointContent) -> bytes:
    """Canonical safetensors bytes: the same state gives the same bytes, in any process."""
    about: CheckpointForm = {
        "step": checkpoint.step,
        "state_root": checkpoint.state_root,
        "weights_digest": checkpoint.weights_digest,
        "aliases": dict(checkpoint.aliases),
    }
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    data: bytes = safetensors.torch.save(dict(checkpoint.tensors), {KEY: text})
    return data


def unpack(data: bytes, *, state_root: str | None = None) -> CheckpointContent:
    """State from bytes, in fresh aligned tensors; raises `NotVerified` unless its roots are those it claims.

    `state_root` is the root that the log names; without it the bytes are only checked against themselves.
    """
    try:
        loaded = safetensors.torch.load(data)
        about = _about(data)
        tensors = {name: one.clone() for name, one in loaded.items()}
        found = CheckpointContent(
            tensors, about["step"], about["state_root"], about["weights_digest"], about["aliases"]
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise NotVerified("this is not a checkpoint of ours", cure="Use an earlier checkpoint.") from error
    root, weights = _roots(tensors)
    if root != found.state_root or (state_root is not None and root != state_root):
        wanted = state_root or found.state_root
        raise NotVerified(f"the checkpoint has the root {root!r}, not {wanted!r}", cure="Use an earlier checkpoint.")
    if weights != found.weights_digest:
        raise NotVerified("the checkpoint's weights are not those it names", cure="Use an earlier checkpoint.")
    return found


def load_model(request: Request, facts: Facts, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The trained model in evaluation mode, on the CPU, from a checkpoint's tensors."""
    model = Learner(request, facts).build()
    state.restore(state.weights(model), judged_weights(request, tensors))
    return model.eval()


def judged_weights(request: Request, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, as `model.NAME`, by which a checkpoint is judged, loaded and exported: averaged if so asked."""
    kept = {name: one for name, one in tensors.items() if name.startswith("model.")}
    means = {name: one for name, one in tensors.items() if name.startswith("ema.")}
    if request.training.ema.use:
        kept |= {f"model.{name.removeprefix('ema.')}": one for name, one in means.items()}
    return kept


def _about(data: bytes) -> CheckpointForm:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about: CheckpointForm = json.loads(header["__metadata__"][KEY])
    return about
