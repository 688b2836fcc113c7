"""Every tensor with memory, by name. It reads from and copies into what is alive; it keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from contracts.errors import NotVerified

Tensors = Mapping[str, Tensor]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that torch would not save, as `model.NAME`; tied ones once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in _named(model):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[f"model.{name}"] = tensor
    return found


def aliases(model: nn.Module) -> dict[str, str]:
    """The further names of tied tensors, each with the name under which the tensor is kept."""
    first: dict[int, str] = {}
    named = ((f"model.{name}", tensor) for name, tensor in _named(model))
    return {name: first[id(one)] for name, one in named if first.setdefault(id(one), name) != name}


def copied(tensors: Tensors, into: Tensors | None = None) -> dict[str, Tensor]:
    """A copy on the CPU, into given buffers where names and shapes are the same (no new memory)."""
    into = into or {}
    with torch.no_grad():
        return {name: _copy(tensor, into.get(name)) for name, tensor in tensors.items()}


def restore(alive: Tensors, stored: Tensors) -> None:
    """Copy stored values into live tensors; raises `NotVerified` unless names, shapes and dtypes are the same."""
    if alive.keys() != stored.keys():
        strange = sorted(alive.keys() ^ stored.keys())
        raise NotVerified(f"the checkpoint is of another model: {strange[0]!r} differs", cure="Use the same request.")
    with torch.no_grad():
        for name, tensor in alive.items():
            value = stored[name]
            if tensor.shape != value.shape or tensor.dtype != value.dtype:
                message = f"{name!r} has shape {tuple(value.shape)} and {value.dtype} in the checkpoint"
                raise NotVerified(message, cure=f"This model has {tuple(tensor.shape)} and {tensor.dtype}.")
            tensor.copy_(value)


def finite(tensors: Tensors) -> bool:
    """Whether no floating-point tensor holds NaN or infinity."""
    return all(_finite(one) for one in tensors.values() if one.is_floating_point())


def _finite(tensor: Tensor) -> bool:
    """A finite sum has finite terms; only one that is not (it may have overflowed) needs a closer look."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _copy(tensor: Tensor, into: Tensor | None) -> Tensor:
    if into is not None and into.shape == tensor.shape and into.dtype == tensor.dtype:
        return into.copy_(tensor)
    return tensor.detach().to("cpu", copy=True).contiguous()


def _named(model: nn.Module) -> chain[tuple[str, Tensor]]:
    parameters = model.named_parameters(remove_duplicate=False)
    return chain(parameters, model.named_buffers(remove_duplicate=False))
