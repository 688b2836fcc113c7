"""What is seen of the attempts of a window, changing no bit of them: norms, units, how gradients follow and scatter.

Everything is a function of the plan and the step. Only the last attempts of a window are looked at.
"""

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from runtime.engine.parts.gradients import norms as norms_of
from runtime.engine.passes import second_pass
from runtime.engine.plain_kinds import total
from runtime.engine.report import LayerEvidence, SensorReadings
from runtime.engine.step import StepResult
from runtime.engine.update import OptimizerState

CAN_DIE = (nn.ReLU, nn.ReLU6)
BOUNDED = {nn.Tanh: (-1.0, 1.0), nn.Sigmoid: (0.0, 1.0), nn.Hardsigmoid: (0.0, 1.0), nn.Softsign: (-1.0, 1.0)}
"""Activations whose answers lie between two numbers; `nn.Hardtanh` says its own, and `nn.ReLU6` is one with a floor."""

MARGIN = 0.01
"""How near to a bound, in shares of the range, an answer is saturated."""


class LayerWatch:
    """A context around one attempt; `layers` and `saturated` say afterwards what was seen of each layer.

    A layer is a module with trained parameters of its own, in the order in which they are moved. What an activation
    answers is told of the layer that was called last before it.
    """

    def __init__(self, model: nn.Module, movement: OptimizerState) -> None:
        self._movement = movement
        self._before = [one.detach().clone() for one in movement.parameters]
        self._dead: dict[str, float] = {}
        self._saturated: dict[str, float] = {}
        self._latest = ""
        self._named = list(model.named_modules())

    def __enter__(self) -> Self:
        hooks = [(module, hook) for name, module in self._named for hook in self._hooks_of(name, module)]
        self._hooks = [module.register_forward_hook(hook) for module, hook in hooks]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def layers(self, felt: StepResult) -> tuple[LayerEvidence, ...]:
        """Norms and dead units per layer; 0 where no gradient came."""
        after = [one.detach() for one in self._movement.parameters]
        if felt.norms is None:
            return ()
        weight = norms_of(after).double().tolist()
        update = norms_of([new - old for new, old in zip(after, self._before, strict=True)]).double().tolist()
        gradient = [0.0] * len(after)
        for place, norm in zip(felt.held, felt.norms.double().tolist(), strict=True):
            gradient[place] = norm
        return tuple(
            LayerEvidence(name, _joined(gradient, at), _joined(weight, at), _joined(update, at), self._dead.get(name))
            for name, at in places_by_layer(self._movement.names).items()
        )

    def saturated(self) -> tuple[float | None, ...]:
        """The share of answers at a bound per layer; None for a layer without a bounded activation behind it."""
        return tuple(self._saturated.get(name) for name in places_by_layer(self._movement.names))

    def _hooks_of(self, name: str, module: nn.Module) -> list[Callable[..., None]]:
        if isinstance(module, nn.Hardtanh):
            bounds: tuple[float, float] | None = (module.min_val, module.max_val)
        else:
            bounds = next((bounds for kind, bounds in BOUNDED.items() if isinstance(module, kind)), None)
        found: list[Callable[..., None]] = [self._dead_hook] if isinstance(module, CAN_DIE) else []
        if bounds is not None:
            found.append(self._bound_hook(*bounds, both=not isinstance(module, CAN_DIE)))
        if not found and any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)):
            found.append(self._layer_hook(name))
        return found

    def _layer_hook(self, name: str) -> Callable[..., None]:
        def remember(*_: Any) -> None:
            self._latest = name

        return remember

    def _dead_hook(self, module: nn.Module, inputs: Any, answer: Tensor) -> None:
        if second_pass.get():
            return
        # Units are channels of images, and the last dimension of sequences.
        unit = 2 if answer.dim() == 3 else min(1, answer.dim() - 1)
        by_unit = answer.detach().transpose(0, unit).flatten(1) if answer.dim() > 1 else answer.detach()[None]
        self._dead[self._latest] = float((by_unit.amax(1) <= 0).float().mean())

    def _bound_hook(self, low: float, high: float, *, both: bool) -> Callable[..., None]:
        """Zero is where a unit of ReLU6 rests: only its upper bound counts."""
        margin = MARGIN * (high - low)

        def look(module: nn.Module, inputs: Any, answer: Tensor) -> None:
            if second_pass.get() or not answer.numel():
                return
            at = answer.detach() >= high - margin
            if both:
                at |= answer.detach() <= low + margin
            self._saturated[self._latest] = float(at.float().mean())

        return look


def places_by_layer(names: Sequence[str]) -> dict[str, list[int]]:
    """The places of each layer's parameters among the trained ones."""
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(name.rpartition(".")[0], []).append(index)
    return found


def _joined(norms: Sequence[float], at: Sequence[int]) -> float:
    return math.sqrt(total(norms[index] ** 2 for index in at))


PAIRS = 2
"""Pairs of successive attempts at the end of a window whose gradients are compared."""

MOST_NUMBERS = 8192
"""Of a larger parameter every so many numbers are looked at, so that neither memory nor time grows with it."""


class GradientWatch:
    """Handed to the last attempts of a window, it keeps numbers of their gradients, and of what each micro-step adds.

    Of a parameter of which only every k-th number is kept, these count k-fold.
    """

    def __init__(self, movement: OptimizerState) -> None:
        self._parameters = movement.parameters
        self._layers = list(places_by_layer(movement.names).values())
        counts = [_real(one.detach()).numel() for one in movement.parameters]
        self._strides = [max(1, -(-count // MOST_NUMBERS)) for count in counts]
        self._sizes = [-(-count // stride) for count, stride in zip(counts, self._strides, strict=True)]
        self._gradients: list[Tensor] = []
        self._parts: list[tuple[int, Tensor]] = []
        self._scatter = [(0.0, 0.0)] * len(self._layers)
        """By layer, summed over attempts: variance of the gradient of one row, and square of the mean gradient."""
        self._estimated = False

    def part(self, rows: int) -> None:
        """Of several micro-steps one, of so many rows, has added its share to the gradients of the parameters."""
        self._parts.append((rows, self._numbers([one.grad for one in self._parameters])))

    def gradients(self, held: Sequence[int], gradients: Sequence[Tensor]) -> None:
        """The gradients by which an attempt moves the parameters at these places, before they are clipped."""
        by_place = dict(zip(held, gradients, strict=True))
        self._gradients.append(self._numbers([by_place.get(place) for place in range(len(self._parameters))]))
        if self._parts:
            self._estimate()
            self._parts = []

    def cosine(self) -> tuple[float | None, ...]:
        """Per layer the mean cosine of successive gradients; None where there are no two that are finite and not 0."""
        if len(self._gradients) < 2:
            return (None,) * len(self._layers)
        kept = torch.stack(self._gradients)
        found: list[float | None] = []
        for sums in self._sums(torch.cat([kept * kept, kept[1:] * kept[:-1]])):
            norms, product = [math.sqrt(square) for square in sums[: len(kept)]], sums[len(kept) :]
            pairs = [(dot, before * after) for dot, before, after in zip(product, norms[:-1], norms[1:], strict=True)]
            cosines = [max(-1.0, min(1.0, dot / norm)) for dot, norm in pairs if 0 < norm < math.inf]
            found.append(total(cosines) / len(cosines) if cosines else None)
        return tuple(found)

    def noise(self) -> tuple[float | None, ...]:
        """Per layer the gradient noise scale in rows; None without micro-steps."""
        return tuple(self._scale_of(*one) for one in self._scatter)

    def noise_scale(self) -> float | None:
        """The noise scale of all layers together."""
        return self._scale_of(*(total(one) for one in zip(*self._scatter, strict=True)))

    def _scale_of(self, variance: float, square: float) -> float | None:
        if not self._estimated or not math.isfinite(variance) or not math.isfinite(square):
            return None
        return variance / square if square > 0 else math.inf

    def _estimate(self) -> None:
        """Add what the micro-steps of an attempt say; means over b rows have the square of the mean + variance / b.

        See McCandlish et al., An empirical model of large-batch training, appendix A.
        """
        rows, sums = [size for size, _ in self._parts], [sums for _, sums in self._parts]
        # In place, because this is most of what sensors cost: what each micro-step added, and below it the sum of all.
        numbers = torch.stack([*sums, sums[-1]])
        for own, before in zip(numbers[1:-1].unbind(), sums, strict=False):
            own.sub_(before)
        shares = torch.tensor([sum(rows) / size for size in rows], dtype=numbers.dtype, device=numbers.device)
        numbers[:-1].mul_(shares[:, None])
        apart = total(1 / size for size in rows) / len(rows) - 1 / sum(rows)
        for at, (*each, square) in enumerate(self._sums(numbers.square_())):
            variance = max(0.0, (total(each) / len(rows) - square) / apart)
            self._scatter[at] = self._scatter[at][0] + variance, self._scatter[at][1] + square - variance / sum(rows)
        self._estimated = True

    def _numbers(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """The numbers that are kept of all gradients, one after another; zeros where there is none."""
        with torch.no_grad():
            pieces = [
                self._parameters[0].new_zeros(size)
                if gradient is None
                else _real(gradient).reshape(-1)
                if stride == 1
                else _real(gradient).reshape(-1)[::stride]
                for gradient, size, stride in zip(gradients, self._sizes, self._strides, strict=True)
            ]
            return torch.cat(pieces).float()

    def _sums(self, numbers: Tensor) -> list[list[float]]:
        """By layer, the sum of each row of numbers."""
        by_parameter = torch.stack([one.sum(1) for one in torch.split(numbers, self._sizes, 1)]).tolist()
        rows = range(len(numbers))
        return [
            [total(by_parameter[place][row] * self._strides[place] for place in places) for row in rows]
            for places in self._layers
        ]


def read_sensors(watch: LayerWatch, successive: GradientWatch, rows_not_finite: tuple[int, ...]) -> SensorReadings:
    """The readings of both at the end of a window, with the rows that were found there."""
    noise, noise_scale = successive.noise(), successive.noise_scale()
    return SensorReadings(successive.cosine(), watch.saturated(), noise, noise_scale, rows_not_finite)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
