"""What code asks of torch while it runs, and from which lines of a file: for the review of a workload's batch.

Functions are watched by torch's own protocol, so that code in C is as visible as Python; what they give is not changed.
"""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contracts.diagnostician import Severity
from runtime.engine.batches import Columns

_BOUNDS = {
    "SoftmaxBackward0": ("softmax", 0.0, 1.0),
    "SigmoidBackward0": ("sigmoid", 0.0, 1.0),
    "TanhBackward0": ("tanh", -1.0, 1.0),
    "ReluBackward0": ("ReLU", 0.0, float("inf")),
    "SoftplusBackward0": ("softplus", 0.0, float("inf")),
}
"""By the node of the graph that an activation leaves: its name, and between what its answers lie."""

_VIEWS = frozenset(
    f"{name}Backward0"
    for name in ("View", "ReshapeAlias", "UnsafeView", "Squeeze", "Unsqueeze", "Select", "ToCopy", "Alias", "Clone")
) | {"SqueezeBackward1", "SqueezeBackward2"}
_LOGIT_LOSSES = ("cross_entropy", "binary_cross_entropy_with_logits")
_NUMBER_LOSSES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
_DIFFERENCES = ("sub", "rsub", "__sub__", "__rsub__")
_CUTS = ("detach", "numpy", "item", "tolist", "__float__")

Place = tuple[str, int]


class FunctionWatch(TorchFunctionMode):
    """Sees every function of torch that code calls, and notes what it is given where that tells of a bug."""

    def __init__(self, file: str, rows: int) -> None:
        super().__init__()
        self.file, self.rows = file, rows
        self.training = True
        self.batch: Columns = {}
        self.told: dict[Place, tuple[str, Severity | None]] = {}
        self.depth = 0
        """How many modules are answering, one within the other; none while the loss is made from their answers."""
        self.cuts: list[tuple[int, object]] = []
        """Lines that cut the graph, each with what it was cut off from; None where gradients were switched off."""
        self.suspects: list[tuple[int, str]] = []
        self.losses: dict[object, str] = {}
        self.targets: list[Tensor] = []

    def line(self) -> int:
        """The line of the user's file that is being run; 0 when none of it is."""
        frame = sys._getframe(1)  # noqa: SLF001 - the standard library has no other way that is fast enough
        while frame is not None:
            if frame.f_code.co_filename == self.file:
                return frame.f_lineno
            frame = frame.f_back  # type: ignore[assignment]
        return 0

    def tell(self, name: str, message: str, line: int | None = None, severity: Severity | None = None) -> None:
        """Note a bug once for each line."""
        self.told.setdefault((name, self.line() if line is None else line), (message, severity))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        before = self._versions()
        answer = func(*args, **given)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = "data" if getattr(func, "__self__", None) is Tensor.data else ""
        if before != self._versions():
            self.tell("batch_changed", f"{name} changes a column of the batch in place.")
        for look in (self._graph, self._loss, self._number, self._chance, self._shape):
            look(name, args, given, answer)
        return answer

    def _versions(self) -> list[int]:
        """How often each column has been written to."""
        return [one._version for one in self.batch.values()]  # noqa: SLF001 - torch counts it for autograd

    def _graph(self, name: str, args: tuple[Any, ...], given: Mapping[str, Any], answer: Any) -> None:
        first = args[0] if args else None
        if name == "backward":
            self.tell("own_backward", "backward is called while the loss is computed.")
        elif self.training and name == "_set_grad_enabled" and first is False:
            self.cuts.append((self.line(), None))
        elif self.training and name in (*_CUTS, "data") and isinstance(first, Tensor) and first.requires_grad:
            self.cuts.append((self.line(), first if first.is_leaf else first.grad_fn))

    def _loss(self, name: str, args: tuple[Any, ...], given: Mapping[str, Any], answer: Any) -> None:
        """Losses of classes: what logits and logarithms may not be."""
        takers = (*_LOGIT_LOSSES, "nll_loss", "kl_div")
        pair = [*args, *(given[key] for key in ("input", "target") if key in given)]
        if name not in (*takers, *_NUMBER_LOSSES) or len(pair) < 2 or not isinstance(answer, Tensor):
            return
        answers, targets = pair[:2]
        self.losses[answer.grad_fn] = name
        if name in ("cross_entropy", "nll_loss"):
            self.targets.append(targets.detach())
        if name in _LOGIT_LOSSES:
            how, low, high = _bounds(answers)
            if how and high < float("inf"):
                shown = f"between {answers.min().item():.3g} and {answers.max().item():.3g}"
                self.tell("squashed_answers", f"{name} takes logits and is given answers of {how}, {shown}.")
            elif how:
                self.tell("bounded_answers", f"{name} takes logits and is given answers of {how}, none below {low:g}.")
        if name == "cross_entropy" and answers.ndim > 1 and answers.shape[1] == 1 and not targets.is_floating_point():
            self.tell("one_class", f"cross_entropy is given answers of the shape {list(answers.shape)}.")
        if name in ("nll_loss", "kl_div") and not _are_logarithms(answers):
            total = float(answers.detach().exp().sum(min(1, answers.ndim - 1)).mean())
            self.tell("log_missing", f"The exponentials of what {name} is given sum up to {total:.4g} per row, not 1.")

    def _number(self, name: str, args: tuple[Any, ...], given: Mapping[str, Any], answer: Any) -> None:
        """Losses of numbers, and differences of answers and targets: shapes that pair up, bounds that do not reach."""
        pair = [*args, *(given[key] for key in ("input", "target") if key in given)][:2]
        whole = name in _NUMBER_LOSSES
        if (
            not (whole or (name in _DIFFERENCES and not self.depth))
            or len(pair) < 2
            or not all(isinstance(one, Tensor) for one in pair)
        ):
            return
        answers, targets = pair if pair[0].requires_grad else pair[::-1]
        if not answers.requires_grad or targets.requires_grad:
            return
        shapes = [list(one.shape) for one in (answers, targets)]
        pairs = {(self.rows,), (self.rows, 1)} == {tuple(one) for one in shapes}
        if (pairs and self.rows > 1) or (whole and shapes[0] != shapes[1]):
            shape = list(np.broadcast_shapes(*shapes))
            self.tell("broadcast", f"Answers {shapes[0]} against targets {shapes[1]} give {shape} differences.")
        how, low, high = _bounds(answers)
        if how and targets.numel() and (float(targets.min()) < low or float(targets.max()) > high):
            shown = f"{float(targets.min()):.3g} to {float(targets.max()):.3g}"
            reach = f"below {low:g}" if high == float("inf") else f"outside of {low:g} to {high:g}"
            self.tell(
                "bounded_answers", f"The model ends in {how}, whose answers are never {reach}; targets go from {shown}."
            )

    def _chance(self, name: str, args: tuple[Any, ...], given: Mapping[str, Any], answer: Any) -> None:
        if self.training:
            return
        dropped = given.get("p", args[1] if len(args) > 1 else 0.5)
        if "dropout" in name and given.get("training", args[2] if len(args) > 2 else True) and dropped:
            self.tell("dropout_in_evaluation", f"{name} drops {dropped:g} of the values in evaluation.")
        elif name == "scaled_dot_product_attention" and given.get("dropout_p"):
            self.tell("dropout_in_evaluation", f"{name} drops {given['dropout_p']:g} of the weights in evaluation.")
        elif name in ("softmax", "log_softmax") and isinstance(answer, Tensor) and answer.ndim > 1:
            dim = given.get("dim", args[1] if len(args) > 1 else None)
            dim = (0 if answer.ndim == 3 else 1) if dim is None else dim
            if dim in (0, -answer.ndim) and len(answer) == self.rows:
                self.suspects.append((self.line(), f"{name} over the first dimension, which is that of the rows"))

    def _shape(self, name: str, args: tuple[Any, ...], given: Mapping[str, Any], answer: Any) -> None:
        if name not in ("view", "reshape") or not isinstance(answer, Tensor) or not isinstance(args[0], Tensor):
            return
        before, after = ([size for size in one.shape if size != 1] for one in (args[0], answer))
        if before != after and sorted(before) == sorted(after) and (line := self.line()):
            shapes = f"{list(args[0].shape)} as {list(answer.shape)}"
            self.tell(
                "swapped_dimensions", f"{name} reads {shapes}: values change their places, no dimensions do.", line
            )


def _bounds(answers: Tensor) -> tuple[str, float, float]:
    """The bounded activation that answers come out of, and between what they lie; an empty name for none."""
    node = answers.grad_fn
    while node is not None and node.name() in _VIEWS:
        node = node.next_functions[0][0]
    return _BOUNDS.get(node.name() if node is not None else "", ("", -float("inf"), float("inf")))


def _are_logarithms(answers: Tensor) -> bool:
    """Whether the exponentials sum up to 1 along some dimension."""
    values = answers.detach().float()
    return any(bool((values.logsumexp(dim).abs() < 1e-2).all()) for dim in range(values.ndim))


class BuildLines:
    """While it is entered: which line of a file built each module, and which modules came later than the model."""

    def __init__(self, watch: FunctionWatch) -> None:
        self._watch = watch
        self._begin = nn.Module.__init__
        self.lines: dict[nn.Module, int] = {}
        self.model: nn.Module | None = None
        self.late: list[nn.Module] = []

    def __enter__(self) -> Self:
        begin, lines = self._begin, self

        def noted(module: nn.Module, *args: Any, **given: Any) -> None:
            begin(module, *args, **given)
            lines.lines[module] = lines._watch.line()
            if lines.model is not None:
                lines.late.append(module)

        nn.Module.__init__ = noted  # type: ignore[method-assign, assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        nn.Module.__init__ = self._begin  # type: ignore[method-assign]

    def of(self, module: nn.Module | None) -> int:
        """The line that built a module, or 0."""
        return 0 if module is None else self.lines.get(module, 0)
