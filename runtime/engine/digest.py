"""Names bytes: BLAKE3 digests of buffers and roots over named tensors. It reads memory and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from blake3 import blake3
from torch import Tensor

PARALLEL = 1 << 24


def digest(data: bytes | memoryview) -> str:
    """The BLAKE3 of some bytes, as hex."""
    return str(blake3(data).hexdigest())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in row-major order as a flat view; shares memory when it can."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def header(name: str, tensor: Tensor) -> bytes:
    """What a leaf says besides its bytes: name, dtype, shape."""
    return f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{','.join(map(str, tensor.shape))}\0".encode()


def leaf(name: str, tensor: Tensor) -> bytes:
    """The digest of one named tensor: header and bytes."""
    data = tensor_bytes(tensor)
    hasher = blake3(header(name, tensor), max_threads=blake3.AUTO if data.nbytes > PARALLEL else 1)
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
