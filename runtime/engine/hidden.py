"""What user code keeps outside the state: attributes of workload and modules, in words. It judges nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runtime.engine import digest
from runtime.engine.stretch import GENERATOR, TENSOR

SIMPLE = (bool, int, float, complex, str, bytes, type(None))
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
USUAL = frozenset(vars(nn.Module()))
LONGEST = 80


def hidden(workload: object, model: nn.Module) -> dict[str, str]:
    """Attributes that a restart does not bring back, by path; the same value is the same words in every process."""
    owners = {"workload": workload} | {f"model.{name}".rstrip("."): module for name, module in model.named_modules()}
    return {
        f"{path}.{name}": said
        for path, owner in owners.items()
        for name, value in vars(owner).items()
        if name not in USUAL and (said := _said(value))
    }


def _said(value: Any) -> str:
    if isinstance(value, GENERATORS):
        return GENERATOR
    if isinstance(value, Tensor):
        return f"{TENSOR}: {digest.leaf('', value).hex()[:16]}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"an array {digest.digest(np.ascontiguousarray(value).tobytes())[:16]}"
    return repr(value)[:LONGEST] if _is_simple(value) else ""


def _is_simple(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_simple(key) and _is_simple(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(_is_simple(one) for one in value)
    return isinstance(value, SIMPLE)
