"""Every tensor with memory, by name; names are picked by patterns. It copies what is alive, and keeps nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import chain

import torch
from torch import Tensor, nn

from contracts.errors import InvalidRequest, NotVerified, Problem

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
    """A copy on the CPU, into given buffers where names and shapes are the same (no new memory).

    What comes from a device goes into memory that the device writes to by itself, and is waited for once for all.
    """
    into = into or {}
    with torch.no_grad():
        found = {name: _copy(tensor, into.get(name)) for name, tensor in tensors.items()}
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.current_stream().synchronize()
    return found


class Mirror:
    """What the CPU sees of tensors that are looked at again and again: themselves, or copies in memory that is kept."""

    def __init__(self) -> None:
        self._kept: Tensors = {}

    def of(self, tensors: Tensors) -> Tensors:
        """Tensors with these names and bytes; they are only to be read, and only until the next ones are asked for."""
        if any(tensor.is_cuda for tensor in tensors.values()):
            self._kept = copied(tensors, self._kept)
            return self._kept
        return tensors


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
    numbers = [one.detach() for one in tensors.values() if one.is_floating_point()]
    devices = {one.device for one in numbers}
    return all(_finite([one for one in numbers if one.device == device]) for device in devices)


def _finite(tensors: Sequence[Tensor]) -> bool:
    """Finite sums have finite terms; only one that is not (it may have overflowed) makes a closer look necessary."""
    sums = torch.stack([one.sum().double() for one in tensors])
    return bool(torch.isfinite(sums).all()) or all(bool(torch.isfinite(one).all()) for one in tensors)


def _copy(tensor: Tensor, into: Tensor | None) -> Tensor:
    if into is None or into.shape != tensor.shape or into.dtype != tensor.dtype:
        into = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return into.copy_(tensor.detach(), non_blocking=tensor.is_cuda)


def _named(model: nn.Module) -> chain[tuple[str, Tensor]]:
    parameters = model.named_parameters(remove_duplicate=False)
    return chain(parameters, model.named_buffers(remove_duplicate=False))


def picked(patterns: Sequence[str], names: Iterable[str], path: str) -> set[str]:
    """The names that any pattern fits; raises `InvalidRequest` at `path` for each pattern that fits none."""
    known = list(names)
    found = {pattern: {name for name in known if fnmatchcase(name, pattern)} for pattern in patterns}
    problems = [
        Problem(f"{path}.{index}", f"{pattern!r} fits no tensor of the model", _cure(pattern, known))
        for index, pattern in enumerate(patterns)
        if not found[pattern]
    ]
    if problems:
        raise InvalidRequest(problems)
    return set().union(*found.values())


def _cure(pattern: str, known: Sequence[str]) -> str:
    near = get_close_matches(pattern, known, 1, 0.0)
    return f"Write names such as {near[0]!r}, with `*` for any characters." if near else "Leave it out."
