"""What is searched: LCBench surrogates, a closed-form function with a fidelity, and which of them may be looked at.

The split was fixed before any sampler was measured or changed. Tuned instances may be looked at as often as one likes;
the others are held out, and are run to state a figure. Of LCBench, the six on which samplers of optuna had been
compared before are tuned; the rest are ordered by the SHA-256 of their ids, of which the first eleven are tuned.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.request.search import Search
from contracts.request.space import Interval, Wholes

EPOCHS = 52
"""The largest fidelity of every problem: what a full training takes."""

SEEN_BEFORE = ("126026", "167149", "167168", "168331", "189873", "189906")
OTHERS = (
    *("3945", "7593", "34539", "126025", "126029", "146212", "167104", "167152", "167161", "167181", "167184"),
    *("167185", "167190", "167200", "167201", "168329", "168330", "168335", "168868", "168908", "168910", "189354"),
    *("189862", "189865", "189866", "189905", "189908", "189909"),
)
_DRAWN = sorted(OTHERS, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
LCBENCH = {"tuned": (*SEEN_BEFORE, *_DRAWN[:11]), "held": tuple(_DRAWN[11:])}
HARTMANN = {"tuned": (0, 1, 2, 3), "held": (4, 5, 6, 7)}

Configuration = Mapping[str, object]
Curves = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Something to search: a space with its default, and the accuracy in points of configurations at every epoch."""

    name: str
    space: Mapping[str, Interval | Wholes]
    default: Configuration
    values: Callable[[Sequence[Configuration], Sequence[int]], Curves]
    """Accuracies, a row for each configuration, a column for each of some epochs."""
    best_known: float | None = None

    @cached_property
    def best(self) -> float:
        """The best value after all epochs: known, or of 20,000 configurations that were drawn."""
        if self.best_known is not None:
            return self.best_known
        return float(self.values(self.drawn(20_000, 7), [EPOCHS]).max())

    def value(self, configuration: Configuration) -> float:
        """The accuracy after all epochs."""
        return float(self.values([configuration], [EPOCHS])[0, 0])

    def drawn(self, count: int, seed: int) -> list[Configuration]:
        """Configurations that are spread evenly over the space."""
        draws = np.random.default_rng(seed).random((count, len(self.space)))
        return [
            {name: _at(domain, draw) for (name, domain), draw in zip(self.space.items(), row, strict=True)}
            for row in draws.tolist()
        ]

    def search(self, seed: int, trials: int, **options: object) -> Search:
        """The search of the product over this space."""
        space = {name: domain.model_dump() for name, domain in self.space.items()}
        given = {"base": {}, "space": space, "trials": trials, "seed": seed, "metric": "val_accuracy", **options}
        return Search.model_validate(given)


def _at(domain: Interval | Wholes, draw: float) -> float | int:
    """The value at a share of a domain, on its scale."""
    low, high = float(domain.low), float(domain.high)
    if isinstance(domain, Wholes):
        low, high = low - 0.5, high + 0.5
    value = math.exp(math.log(low) + draw * math.log(high / low)) if domain.log else low + draw * (high - low)
    return min(max(round(value), domain.low), domain.high) if isinstance(domain, Wholes) else value


def lcbench(folder: Path, which: str) -> list[Problem]:
    """The surrogates of LCBench in a folder of YAHPO: seven settings of networks on tables of OpenML."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    places = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"]
    listed = json.loads((folder / "config_space.json").read_text())["hyperparameters"]
    space: dict[str, Interval | Wholes] = {}
    for each in listed:
        if each["name"] not in ("OpenML_task_id", "epoch"):
            low, high, log = each["lower"], each["upper"], each["log"]
            kind, word = (Wholes, "int") if each["type"] == "uniform_int" else (Interval, "float")
            space[each["name"]] = kind.model_validate({"type": word, "low": low, "high": high, "log": log})
    default = {each["name"]: each["default"] for each in listed if each["name"] in space}
    order = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")

    def values(place: int, configurations: Sequence[Configuration], epochs: Sequence[int]) -> Curves:
        rows = np.array([[given[name] for name in order] for given in configurations], dtype=np.float32)
        times = np.tile(np.array(epochs, dtype=np.float32), len(rows))[:, None]
        inputs = np.hstack([times, np.repeat(rows, len(epochs), axis=0)])
        found = []
        for some in np.array_split(inputs, math.ceil(len(inputs) / 50_000)):
            kinds = np.full((len(some), 1), place, dtype=np.int32)
            found.append(np.asarray(model.run(None, {"x_cat": kinds, "x_cont": some})[0])[:, 1])
        return np.concatenate(found).reshape(len(rows), len(epochs)).astype(np.float64)

    return [Problem(id, space, default, partial(values, places[id])) for id in LCBENCH[which]]


_PEAKS = np.array(
    [[0.3689, 0.117, 0.2673], [0.4699, 0.4387, 0.747], [0.1091, 0.8732, 0.5547], [0.0381, 0.5743, 0.8828]]
)
_WIDTHS = np.array([[3.0, 10.0, 30.0], [0.1, 10.0, 35.0], [3.0, 10.0, 30.0], [0.1, 10.0, 35.0]])
_HEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_BEST = 3.86278


def hartmann(which: str) -> list[Problem]:
    """Hartmann's function of three variables as an accuracy that a training approaches, slower here and faster there.

    After t epochs an accuracy is its last one less `gap * (t^-c - 52^-c)`, and gap and c depend on the settings, so
    curves cross. An instance has its variables in another order, or mirrored, and other gaps.
    """
    space: dict[str, Interval | Wholes] = {
        "rate": Interval(type="float", low=1e-4, high=1e-1, log=True),
        "width": Wholes(type="int", low=1, high=200),
        "dropout": Interval(type="float", low=0.0, high=1.0),
    }
    default = {"rate": 1e-3, "width": 64, "dropout": 0.1}

    def values(instance: int, configurations: Sequence[Configuration], epochs: Sequence[int]) -> Curves:
        chance = np.random.default_rng(instance)
        order, mirrored, mixed = chance.permutation(3), chance.random(3) < 0.5, chance.random((2, 3))
        given = np.array([[float(str(one[name])) for name in space] for one in configurations])
        unit = np.stack([np.log10(given[:, 0] / 1e-4) / 3, (given[:, 1] - 1) / 199, given[:, 2]], axis=1)
        unit = np.where(mirrored, 1 - unit, unit)[:, order]
        inside = (_WIDTHS * (unit[:, None, :] - _PEAKS) ** 2).sum(axis=2)
        last = 100 * (np.exp(-inside) @ _HEIGHTS) / _HARTMANN_BEST
        gap, speed = ((np.abs(np.sin(3 * (unit @ weights))))[:, None] for weights in mixed)
        exponent, times = 0.3 + speed, np.array(epochs, dtype=np.float64)[None, :]
        return last[:, None] * (1 - (0.3 + 0.6 * gap) * (times**-exponent - float(EPOCHS) ** -exponent))

    return [Problem(f"hartmann-{one}", space, default, partial(values, one), 100.0) for one in HARTMANN[which]]
