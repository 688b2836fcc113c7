"""Looks closely at one attempt: norms per layer, and units that answer nobody. Looking changes no bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from runtime.engine.exact import total
from runtime.engine.movement import Movement
from runtime.engine.norms import norms as norms_of
from runtime.engine.recompute import again
from runtime.engine.report import LayerEvidence
from runtime.engine.step import StepResult

CAN_DIE = (nn.ReLU, nn.ReLU6)


class Watch:
    """A context around one attempt; `layers` says afterwards what was seen."""

    def __init__(self, model: nn.Module, movement: Movement) -> None:
        self._movement = movement
        self._before = [one.detach().clone() for one in movement.parameters]
        self._dead: dict[str, float] = {}
        self._latest = ""
        self._named = list(model.named_modules())

    def __enter__(self) -> Self:
        self._hooks = [
            module.register_forward_hook(self._unit_hook if isinstance(module, CAN_DIE) else self._layer_hook(name))
            for name, module in self._named
            if isinstance(module, CAN_DIE) or _has_matrix(module)
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def _layer_hook(self, name: str) -> Callable[..., None]:
        def remember(*_: Any) -> None:
            self._latest = name

        return remember

    def _unit_hook(self, module: nn.Module, inputs: Any, answer: Tensor) -> None:
        if again.get():
            return
        # Units are channels of images, and the last dimension of sequences.
        unit = 2 if answer.dim() == 3 else min(1, answer.dim() - 1)
        by_unit = answer.detach().transpose(0, unit).flatten(1) if answer.dim() > 1 else answer.detach()[None]
        self._dead[self._latest] = float((by_unit.amax(1) <= 0).float().mean())

    def layers(self, felt: StepResult) -> tuple[LayerEvidence, ...]:
        """Evidence per layer, a layer being a module with trained parameters of its own; 0 where no gradient came."""
        after = [one.detach() for one in self._movement.parameters]
        if felt.norms is None:
            return ()
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self._movement.names):
            found.setdefault(name.rpartition(".")[0], []).append(index)
        weight = norms_of(after).double().tolist()
        update = norms_of([new - old for new, old in zip(after, self._before, strict=True)]).double().tolist()
        gradient = [0.0] * len(after)
        for place, norm in zip(felt.held, felt.norms.double().tolist(), strict=True):
            gradient[place] = norm
        return tuple(
            LayerEvidence(name, _joined(gradient, at), _joined(weight, at), _joined(update, at), self._dead.get(name))
            for name, at in found.items()
        )


def _has_matrix(module: nn.Module) -> bool:
    return any(one.dim() > 1 for one in module.parameters(recurse=False))


def _joined(norms: Sequence[float], at: Sequence[int]) -> float:
    return math.sqrt(total(norms[index] ** 2 for index in at))
