"""Weights that a model begins with and weights that stay as they are. It opens no file: tensors are handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from contracts.errors import InvalidRequest, Problem
from runtime.engine import digest, state
from runtime.engine.state import picked

PREFIX = "model."


def initial_root(tensors: Mapping[str, Tensor]) -> str:
    """By what a session names the tensors that it begins with."""
    return digest.root(_weights(tensors))


def adopt(model: nn.Module, tensors: Mapping[str, Tensor], fresh: Sequence[str]) -> None:
    """Copy given weights into a model, all but those that patterns name; `InvalidRequest` says what does not fit."""
    given = _weights(tensors)
    own = {name.removeprefix(PREFIX): one for name, one in state.weights(model).items()}
    tied = {name.removeprefix(PREFIX) for name in state.aliases(model)}
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
