"""The silent bugs that a workload's model shows with one real batch; for a child, because it runs the user's code.

Torch's functions are watched while the code computes a training loss, and answers in evaluation. Each check compares
what the code gave with what it must give, and names the line of the user's file from which the function was called.
"""

import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runtime.engine.batches import Columns, Feed
from runtime.engine.dataset import Dataset
from runtime.engine.evaluate import hidden, judging
from runtime.engine.plan import Plan
from runtime.engine.state import Tensors
from runtime.engine.step import TrainingSetup
from runtime.home.silent_bugs import CodeFinding, finding
from runtime.model.function_watch import BuildLines, FunctionWatch

MOST_ROWS, MOST_SECONDS = 64, 60.0
"""Rows of the batch that is looked at, and seconds after which no further check begins."""

LARGE = 30.0
"""A root mean square of inputs that first weights cannot be meant for."""

_NORMALISING = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")
_OWN_ROWS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def review_batch(plan: Plan, dataset: Dataset, file: Path, initial: Tensors | None = None) -> Sequence[CodeFinding]:
    """The silent bugs of a plan's workload, whose code is in `file`, in the order of their lines."""
    rows = min(MOST_ROWS, plan.resolved.batch, dataset.facts.rows["train"])
    watch = FunctionWatch(str(file), rows)
    with BuildLines(watch) as lines, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setup = TrainingSetup.of(plan, dataset, initial)
        lines.model = setup.model
        review = _BatchReview(plan, setup, Feed(dataset, "train", plan.resolved.device), watch, lines)
        review.look()
    told = sorted(watch.told.items(), key=lambda item: (item[0][1], item[0][0]))
    return [finding(name, str(file), line, message, severity) for (name, line), (message, severity) in told]


class _BatchReview:
    """One look at a model: each check says what it finds to the watch."""

    def __init__(self, plan: Plan, setup: TrainingSetup, feed: Feed, watch: FunctionWatch, lines: BuildLines) -> None:
        self.plan, self.setup, self.feed, self.watch, self.lines = plan, setup, feed, watch, lines
        self.learner, self.model = setup.learner, setup.model
        self.modules = {module: name for name, module in self.model.named_modules()}
        self.called: set[nn.Module] = set()
        self.hidden: dict[nn.Module, int] = {}
        """Modules that were called without gradients, and the line that switched these off."""
        taken = plan.resolved.batch * plan.resolved.accumulate
        self.rows = setup.sampler.take(0, taken)[: watch.rows]
        file = Path(watch.file)
        self.source = file.read_text(errors="replace").splitlines() if file.is_file() else []
        self.answers: Tensor | None = None

    def look(self) -> None:
        """Every check in turn; one that ends in an error, or for which no time is left, is told and hides no other."""
        checks: Sequence[Callable[[], None]] = (
            *(self._registered, self._trained, self._gradients, self._judged, self._calls, self._rows_apart),
            *(self._future, self._doubled, self._targets, self._constant),
        )
        until = time.monotonic() + MOST_SECONDS
        for check in checks:
            name = check.__name__.strip("_")
            try:
                if time.monotonic() > until:
                    self.watch.tell("not_looked_at", f"{name}: {MOST_SECONDS:g} s were over.", 0)
                else:
                    check()
            except Exception as error:  # noqa: BLE001 - it is the user's code that fails, with rows as we arrange them
                self.watch.tell("not_looked_at", f"{name}: {type(error).__name__}: {error}", 0)

    # ------------------------------------------------------------ what is asked of the user's code

    def _batch(self, rows: np.ndarray) -> Columns:
        return self.feed.batch(self.feed.batches(rows, len(rows), 0)[0])

    @contextmanager
    def _watched(self, batch: Columns, *, training: bool) -> Iterator[None]:
        """Torch's functions and the modes of modules, while the user's code runs on a batch."""
        modes = {module: module.training for module in self.modules}
        self.watch.training, self.watch.batch = training, batch
        with self.watch, self.setup.number_format.computing():
            yield
        changed = [module for module, mode in modes.items() if module.training != mode]
        for module in changed:
            module.training = modes[module]
        if changed:
            names = ", ".join(self.modules[one] or "the model" for one in changed[:3])
            quiet = all(type(one).__name__.startswith(_NORMALISING) for one in changed)
            line = self._written(r"\.(eval|train)\(")
            message = f"{names} {'is' if len(changed) == 1 else 'are'} in another mode after the call than before it."
            self.watch.tell("mode_changed", message, line, "note" if quiet else None)

    def _ask(self, batch: Columns, seed: int = 1) -> Tensor | None:
        """What predict answers in evaluation; None where it is no tensor with an entry for each row."""
        self.learner.reseed(seed)
        with torch.no_grad(), judging(self.model), self._watched(batch, training=False):
            answers: object = self.learner.workload.predict(self.model, batch)
        fits = isinstance(answers, Tensor) and answers.ndim > 0 and len(answers) == self.watch.rows
        return answers.detach().float() if fits and isinstance(answers, Tensor) else None

    def _loss(self, batch: Columns) -> float:
        self.learner.reseed(1)
        with torch.no_grad(), judging(self.model), self._watched(batch, training=False):
            loss, _ = self.learner.objective(self.model, batch)
        return float(loss)

    def _written(self, pattern: str) -> int:
        """The first line of the file that a pattern is found in, or 0."""
        return next((at for at, line in enumerate(self.source, 1) if re.search(pattern, line)), 0)

    def _same(self, left: Tensor, right: Tensor) -> bool:
        if left.shape != right.shape:
            return True
        size = 1e-4 if self.plan.resolved.precision == "fp32" else 5e-2
        scale = max(float(left.abs().max()), 1e-6)
        return bool(torch.isclose(left, right, rtol=0.0, atol=size * scale, equal_nan=True).all())

    # ------------------------------------------------------------ checks of what is built

    def _registered(self) -> None:
        """Weights that are held by attributes and are not the model's."""
        known = {id(one) for one in (*self.model.parameters(), *self.model.buffers(), *self.modules)}
        owners = [*self.modules.items(), (self.learner.workload, "the workload")]
        for owner, name in owners:
            for key, value in vars(owner).items():
                if key.startswith("_") and isinstance(owner, nn.Module):
                    continue
                for one in _held(value):
                    loose = isinstance(one, Tensor) and one.requires_grad and one.is_leaf
                    layer = isinstance(one, nn.Module) and any(each.requires_grad for each in one.parameters())
                    if (loose or layer) and id(one) not in known:
                        line = self.lines.of(one) if isinstance(one, nn.Module) else self._written(rf"self\.{key}\b")
                        what = f"{name}.{key}".lstrip(".")
                        self.watch.tell("unregistered", f"{what} holds weights that nothing trains.", line)

    def _trained(self) -> None:
        """Weights that are frozen, and weights that no group moves."""
        named = dict(self.model.named_parameters())
        still = [name for name, one in named.items() if not one.requires_grad]
        if still and not self.learner.request.model.freeze:
            owners = {name: self._owner(name) for name in named}
            moved = [type(owners[name]).__name__ for name in named if name not in still]
            bare = bool(moved) and all(one.startswith(_NORMALISING) for one in moved)
            message = f"{len(still)} of {len(named)} parameters are frozen by the code, such as {still[0]}."
            line = self._written(r"requires_grad(_\(\s*False|\s*=\s*False)")
            self.watch.tell("frozen", message, line, "warning" if bare else None)
        moving = {id(one) for one in self.setup.movement.parameters}
        left = [name for name, one in named.items() if one.requires_grad and id(one) not in moving]
        if left:
            message = f"{len(left)} parameters are in no group, such as {left[0]}."
            self.watch.tell("not_moved", message, self._written(r"def param_groups\b"))

    def _owner(self, parameter: str) -> nn.Module:
        return self.model.get_submodule(parameter.rpartition(".")[0])

    # ------------------------------------------------------------ checks of one step

    def _gradients(self) -> None:
        """One training loss, backward: what gets no gradient, what stays alike, what comes in unscaled."""
        batch = self.setup.feed.batch(self.setup.feed.batches(self.rows, len(self.rows), 0)[0])
        hooks = [module.register_forward_pre_hook(self._enter) for module in self.modules]
        hooks += [module.register_forward_hook(self._leave, always_call=True) for module in self.modules]
        self.learner.reseed(1)
        try:
            with self._watched(batch, training=True):
                loss, _ = self.learner.objective(self.model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        late = [one for one in self.lines.late if any(True for _ in one.parameters()) and one not in self.modules]
        for module in late:
            kind = type(module).__name__
            self.watch.tell("layer_in_forward", f"{kind} was built while the model answered.", self.lines.of(module))
        node = loss.grad_fn
        if node is not None and node.name() == "NegBackward0" and node.next_functions[0][0] in self.watch.losses:
            name = self.watch.losses[node.next_functions[0][0]]
            self.watch.tell(
                "negated_loss", f"The loss is {name} with a minus before it.", self._written(rf"-.*\b{name}\b")
            )
        if loss.requires_grad:
            self.setup.number_format.backward(loss)
        self._without_gradient()
        self._alike()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Before a module answers: whether the first with weights takes numbers of a size that it can use."""
        first = next((one for one in args if isinstance(one, Tensor)), None)
        own = any(True for _ in module.parameters(recurse=False))
        fresh = not any(any(True for _ in one.parameters(recurse=False)) for one in self.called)
        self.watch.depth += 1
        if not torch.is_grad_enabled():
            self.hidden[module] = next((line for line, cut in reversed(self.watch.cuts) if cut is None and line), 0)
        self.called.add(module)
        if first is None:
            return
        if own and fresh and first.is_floating_point() and not type(module).__name__.startswith(_NORMALISING):
            size = float(first.detach().double().square().mean().sqrt())
            if size > LARGE:
                message = (
                    f"{self.modules[module] or type(module).__name__} takes inputs of a root mean square of {size:.4g}."
                )
                self.watch.tell("unscaled_inputs", message, self.watch.line() or self.lines.of(module))
        rows_second = first.ndim == 3 and len(first) == self.watch.rows
        if rows_second and getattr(module, "batch_first", True) is False:
            what = f"{type(module).__name__} without batch_first, which takes rows along the second dimension"
            self.watch.suspects.append((self.lines.of(module), what))
        if getattr(module, "track_running_stats", True) is False and not isinstance(module, _OWN_ROWS):
            what = f"{type(module).__name__} with track_running_stats=False, which uses the batch's own statistics"
            self.watch.suspects.append((self.lines.of(module), what))

    def _without_gradient(self) -> None:
        missing = dict[nn.Module, list[str]]()
        for name, one in self.model.named_parameters():
            if one.requires_grad and one.grad is None:
                missing.setdefault(self._owner(name), []).append(name)
        for module, names in missing.items():
            own = ", ".join(name.rpartition(".")[2] for name in names[:3])
            what = f"{f'{type(module).__name__} {self.modules[module]}'.strip()} ({own})"
            cut = next((line for line, at in reversed(self.watch.cuts) if line and _reaches(at, module)), 0)
            if module not in self.called:
                chosen = self._beside(module)
                message = f"{what} was not called{' with this batch' if chosen else ''}."
                self.watch.tell("unused_layer", message, self.lines.of(module), "note" if chosen else None)
            elif cut or module in self.hidden:
                line = cut or self.hidden[module]
                self.watch.tell("cut_graph", f"{what} got no gradient: the graph is cut here.", line)
            else:
                self.watch.tell("no_gradient", f"{what} was called and got no gradient.", self.lines.of(module))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], answer: object) -> None:
        self.watch.depth -= 1

    def _beside(self, module: nn.Module) -> bool:
        """Whether it is one of several in a list, of which others were called: which ones may depend on the batch."""
        lists = [one for one in self.modules if isinstance(one, nn.ModuleList | nn.ModuleDict)]
        for one in lists:
            places = list(one.children()) if isinstance(one, nn.ModuleList) else list(one.values())
            if any(module in set(place.modules()) for place in places):
                return any(part in self.called for place in places for part in place.modules())
        return False

    def _alike(self) -> None:
        """Layers whose units are equal and move alike."""
        weights = [(name, one) for name, one in self.model.named_parameters() if one.ndim > 1 and one.requires_grad]
        if len(weights) > 1 and not any(bool(one.any()) for _, one in weights):
            self.watch.tell("equal_units", "All weights are 0.", self.lines.of(self._owner(weights[0][0])))
            return
        for name, one in weights:
            if (
                one.grad is None
                or len(one) < 2
                or not bool(one.grad.any())
                or isinstance(self._owner(name), nn.Embedding)
            ):
                continue
            if all(_equal_rows(each.detach()) for each in (one, one.grad)):
                line = self.lines.of(self._owner(name))
                self.watch.tell(
                    "equal_units", f"The {len(one)} units of {name} are equal, and so are their gradients.", line
                )

    # ------------------------------------------------------------ checks of evaluation

    def _judged(self) -> None:
        """Evaluation itself: loss and predict on one batch, one after the other, as the engine asks them."""
        batch = self._batch(self.rows)
        try:
            self._loss(batch)
            self._ask(batch)
            self.answers = self._ask(self._batch(self.rows))
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises would end the session
            frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == self.watch.file]
            line = frames[-1].lineno or 0 if frames else 0
            if self.learner.metrics or (frames and frames[0].name in ("loss", "predict")):
                self.watch.tell("evaluation_fails", f"{type(error).__name__}: {error}", line)

    def _calls(self) -> None:
        """The same rows again with the same seed, and with another one."""
        if self.answers is None:
            return
        before = hidden(self.learner.workload, self.model)
        self._ask(self._batch(self.rows))
        first = self._ask(self._batch(self.rows))
        after = hidden(self.learner.workload, self.model)
        if first is None or not self._same(self.answers, first):
            names = [name for name in after if after[name] != before.get(name)] or [
                name for name, said in after.items() if "generator" in said
            ]
            line = self._written(rf"self\.{names[0].rpartition('.')[2]}\b\s*\W?=") if names else 0
            what = f" {', '.join(names[:3])} may be why." if names else ""
            self.watch.tell("state_between_calls", f"The same rows were answered in another way.{what}", line)
            self.answers = None
            return
        other = self._ask(self._batch(self.rows), seed=2)
        drops = any(name == "dropout_in_evaluation" for name, _ in self.watch.told)
        if other is not None and not self._same(first, other) and not drops:
            self.watch.tell("chance_in_evaluation", "Another seed gave other answers.", 0)

    def _rows_apart(self) -> None:
        """Each half of the rows beside other rows in the place of the other half."""
        half = self.watch.rows // 2
        if self.answers is None or half < 1:
            return
        others = np.setdiff1d(np.arange(self.feed.rows), self.rows)[:half]
        change = 0.0
        for stays in (slice(None, -half), slice(half, None)):
            rows = self.rows.copy()
            gone = np.ones(len(rows), bool)
            gone[stays] = False
            rows[gone] = others if len(others) == half else np.resize(self.rows[stays], half)
            moved = self._ask(self._batch(rows))
            if moved is not None and not self._same(self.answers[stays], moved[stays]):
                size = float(self.answers.abs().max().clamp(min=1e-6))
                change = max(change, float((self.answers[stays] - moved[stays]).abs().max()) / size)
        if change:
            line, why = next(iter(sorted(self.watch.suspects, key=lambda one: not one[0])), (0, ""))
            line = line or next((at for name, at in self.watch.told if name == "swapped_dimensions"), 0)
            message = f"Answers of rows changed by {change:.2g} of their size when other rows of the batch did."
            self.watch.tell("rows_mixed", f"{message}{f' It may be {why}.' if why else ''}", line)

    def _future(self) -> None:
        """Tokens of the second half exchanged: answers of the first half must not know, when the next one is learnt."""
        batch = self._batch(self.rows)
        x = batch.get("x")
        if self.answers is None or x is None or x.ndim != 2 or self.answers.shape[:2] != x.shape or x.shape[1] < 4:
            return
        following = x[:, 1:].reshape(-1)
        if not any(
            one.numel() == following.numel() and bool((one.reshape(-1) == following).all())
            for one in self.watch.targets
        ):
            return
        half = x.shape[1] // 2
        moved = self._ask({**batch, "x": torch.cat([x[:, :half], x[:, half:].roll(1, 0).flip(1)], 1)})
        if moved is not None and not self._same(self.answers[:, :half], moved[:, :half]):
            attention = next((one for one in self.modules if isinstance(one, nn.MultiheadAttention)), None)
            line = self._written(
                r"scaled_dot_product_attention|TransformerEncoder\b|MultiheadAttention"
            ) or self.lines.of(attention)
            self.watch.tell("sees_future", "Answers at early places changed with later tokens.", line)

    def _doubled(self) -> None:
        """Each row twice, and three times: a mean stays, a sum grows, a mean divided by the rows shrinks."""
        once, *more = (self._loss(self._batch(np.tile(self.rows, times))) for times in (1, 2, 3))
        if not abs(once) > 1e-9:
            return
        ratios = [one / once for one in more]
        line = self._written(r"def loss\b")
        if all(abs(ratio - times) < 1e-3 * times for ratio, times in zip(ratios, (2, 3), strict=True)):
            self.watch.tell(
                "summed_loss", f"The loss of the batch is {once:.4g}, with each row twice {more[0]:.4g}.", line
            )
        if all(abs(ratio * times - 1) < 1e-3 for ratio, times in zip(ratios, (2, 3), strict=True)):
            self.watch.tell(
                "averaged_twice", f"The loss of the batch is {once:.4g}, with each row twice {more[0]:.4g}.", line
            )

    def _targets(self) -> None:
        """The rows' targets exchanged."""
        batch = self._batch(self.rows)
        y = batch.get("y")
        if y is None or self.learner.facts.task not in ("classification", "regression") or bool((y == y[0]).all()):
            return
        if self._loss(batch) == self._loss({**batch, "y": y.roll(1, 0)}) == self._loss({**batch, "y": y.flip(0)}):
            self.watch.tell(
                "labels_ignored", "The loss stays the same when targets are exchanged.", self._written(r"def loss\b")
            )

    def _constant(self) -> None:
        """Answers that no row changes, also when the weights are shaken; the last check, because it changes weights."""
        x = self._batch(self.rows).get("x")
        if self.answers is None or (x is not None and bool((x == x[:1]).all())) or len(self.answers) < 2:
            return
        if not _equal_rows(self.answers):
            return
        chance = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for one in self.model.parameters():
                if one.is_floating_point():
                    one.add_(torch.randn(one.shape, generator=chance).to(one) * 0.05)
        shaken = self._ask(self._batch(self.rows))
        if shaken is not None and _equal_rows(shaken):
            value = float(self.answers.flatten()[0])
            self.watch.tell(
                "constant_answers", f"Every row is answered {value:.4g}.", self._written(r"def (forward|predict)\b")
            )


def _equal_rows(values: Tensor) -> bool:
    rows = values.reshape(len(values), -1)
    return bool(torch.isclose(rows, rows[:1], rtol=1e-5, atol=1e-7).all())


def _reaches(node: object, module: nn.Module) -> bool:
    """Whether what was computed at a node of the graph depends on parameters of a module's own."""
    wanted, waiting, seen = {id(one) for one in module.parameters(recurse=False)}, [node], set[object]()
    while waiting:
        node = waiting.pop()
        if id(node) in wanted or id(getattr(node, "variable", None)) in wanted:
            return True
        seen.add(node)
        following = (one for one, _ in getattr(node, "next_functions", ()) if one is not None)
        waiting += [one for one in following if one not in seen]
    return False


def _held(value: object, depth: int = 3) -> Iterator[object]:
    """Tensors and modules in an attribute, also in lists and mappings; of long ones the first."""
    if isinstance(value, Tensor | nn.Module):
        yield value
    elif isinstance(value, list | tuple | dict) and depth:
        for one in list(value.values() if isinstance(value, dict) else value)[:1000]:
            yield from _held(one, depth - 1)
