"""Every tensor with memory, by name: its digest, copies and restoring, names picked by patterns, weights to begin with.

It opens no file: tensors are handed in.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import chain

import torch
from blake3 import blake3
from torch import Tensor, nn

from contracts.errors import InvalidRequest, NotVerified, Problem

PARALLEL = 1 << 24


def digest(data: bytes | memoryview) -> str:
    """The BLAKE3 of some bytes, as hex."""
    return str(blake3(data).hexdigest())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in row-major order as a flat view; shares memory when it can."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def leaf_header(name: str, tensor: Tensor) -> bytes:
    """What a leaf says besides its bytes: name, dtype, shape."""
    return f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{','.join(map(str, tensor.shape))}\0".encode()


def leaf(name: str, tensor: Tensor) -> bytes:
    """The digest of one named tensor: header and bytes."""
    data = tensor_bytes(tensor)
    hasher = blake3(leaf_header(name, tensor), max_threads=blake3.AUTO if data.nbytes > PARALLEL else 1)
    hasher.update(data)
    return bytes(hasher.digest())


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The digest of every tensor by name, in order of names: what two states are compared by."""
    return {name: leaf(name, tensors[name]).hex() for name in sorted(tensors)}


def root(tensors: Mapping[str, Tensor]) -> str:
    """One digest over names, dtypes, shapes and bytes; independent of the mapping's order."""
    return root_of(leaf(name, tensors[name]) for name in sorted(tensors))


def root_of(found: Iterable[bytes]) -> str:
    """The root over leaves in order of names."""
    return str(blake3(b"".join(found)).hexdigest())


def first_difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """The first name, in order, whose tensors are not the same bits; None when all are."""
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs or leaf(name, ours[name]) != leaf(name, theirs[name]):
            return name
    return None


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


PREFIX = "model."


def initial_root(tensors: Mapping[str, Tensor]) -> str:
    """By what a session names the tensors that it begins with."""
    return root(_weights(tensors))


def load_initial(model: nn.Module, tensors: Mapping[str, Tensor], fresh: Sequence[str]) -> None:
    """Copy given weights into a model, all but those that patterns name; `InvalidRequest` says what does not fit."""
    given = _weights(tensors)
    own = {name.removeprefix(PREFIX): one for name, one in weights(model).items()}
    tied = {name.removeprefix(PREFIX) for name in aliases(model)}
    left_out = picked(fresh, {**own, **given}, "model.fresh") | tied
    wanted, there = own.keys() - left_out, given.keys() - left_out
    problems = [_problem(name, "is not in the file") for name in sorted(wanted - there)]
    problems += [_problem(name, "is not in the model") for name in sorted(there - wanted)]
    problems += [
        _problem(name, f"has shape {tuple(given[name].shape)} in the file and {tuple(own[name].shape)} in the model")
        for name in sorted(wanted & there)
        if given[name].shape != own[name].shape
    ]
    if problems:
        raise InvalidRequest(problems[:20])
    with torch.no_grad():
        for name in wanted:
            own[name].copy_(given[name])


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take weights out of training, and let modules whose buffers are all named gather no statistics."""
    if not patterns:
        return
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    frozen = picked(patterns, [*parameters, *buffers], "model.freeze")
    if parameters.keys() <= frozen:
        message = "nothing is left to train"
        raise InvalidRequest([Problem("model.freeze", message, "Leave some weights out of the patterns.")])
    for name in parameters.keys() & frozen:
        parameters[name].requires_grad_(False)  # noqa: FBT003 - torch takes it by position
    for path, module in model.named_modules():
        own = [f"{path}.{name}" if path else name for name, _ in module.named_buffers(recurse=False)]
        if own and frozen.issuperset(own):
            module.training = False


def _weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors by its own names; of a checkpoint of ours only these."""
    whole = any(name.startswith(PREFIX) for name in tensors)
    return {name.removeprefix(PREFIX): one for name, one in tensors.items() if not whole or name.startswith(PREFIX)}


def _problem(name: str, what: str) -> Problem:
    return Problem("model.init", f"{name!r} {what}", "Name it in `model.fresh`, or choose another file or model.")
