"""The tasks of the fault bench: where their rows come from, what is done to them, and rows that nobody touches.

A session is given rows as a user would have them: a file, or a generated source. What a fault does to rows it does to
that file. How good a model is, is measured on clean rows of the same origin that no session has seen.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

Arrays = dict[str, np.ndarray]

TUNING_TASKS = ("digits", "diabetes", "tokens")
ONCE_HELD_TASKS = ("breast_cancer", "images", "blobs")
"""What was held out first, run once, and has been tuned with since."""

TASKS = (*TUNING_TASKS, *ONCE_HELD_TASKS)

HELD_TASKS = ("wine", "spirals", "waves", "shapes", "phrases")
"""No case of these is run before the rules are final. Fixed before any rule was changed after the first such run."""

FORMS = {"waves": "diabetes", "shapes": "images", "phrases": "tokens"}
"""The task whose kind of rows and of model a held-out one has, where that is not a table of classes."""

TABLES = ("digits", "diabetes", "breast_cancer", "blobs", "wine", "spirals", "waves")
"""Whose rows are flat numbers."""

CLASSES = {"digits": 10, "breast_cancer": 2, "images": 6, "blobs": 3, "wine": 3, "spirals": 3, "shapes": 4}
VOCABULARY = {"tokens": 16, "phrases": 12}
SCORES = (
    dict.fromkeys(CLASSES, "f1_macro")
    | dict.fromkeys(VOCABULARY, "next_token_accuracy")
    | dict.fromkeys(("diabetes", "waves"), "r2")
)
"""By which metric on clean rows a model of each task is judged."""


def form(task: str) -> str:
    """The task that has the same kind of rows."""
    return FORMS.get(task, task)


FEWEST = 30
"""Rows of a file that a share keeps at least."""


@dataclass(frozen=True)
class Rows:
    """The rows of one session, by what is done to those of its task; what is not named is left alone.

    Shares are of rows. `few` keeps that many rows. `rare` keeps that many rows of each of the first `rare_classes`.
    `leak` adds what tells the answer, that strong. `poison` puts numbers near the largest there are into as many rows.
    `units` multiplies every feature by up to so much, and moves it by as much again. `otherwise` says that noise and
    leaks are of another form: classes are taken for the next one, numbers are far off, and a leak is a curve or a code.
    """

    task: str
    few: int = 0
    noise: float = 0.0
    leak: float = 0.0
    rare: int = 0
    rare_classes: int = 1
    poison: int = 0
    units: float = 0.0
    scaled: bool = False
    """Features are brought to mean 0 and deviation 1 in the file."""
    val: float = 0.2
    seed: int = 0
    otherwise: bool = False

    @property
    def key(self) -> str:
        """The same rows have the same name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def source(self, folder: Path) -> dict[str, object]:
        """The section `data` of a request for these rows, whose file is written if it is not there."""
        split = {"train": 1 - self.val, "val": self.val, "test": 0.0}
        if form(self.task) == "tokens":
            rows, test = self.few or 480, 0.25
            split = {"train": (1 - test) * (1 - self.val), "val": (1 - test) * self.val, "test": test}
            length, noise = (16, 0.1) if self.task == "tokens" else (20, 0.15)
            about = {"length": length, "vocabulary": VOCABULARY[self.task], "noise": self.noise or noise}
            return {"source": "tokens", "rows": round(rows / (1 - test)), "seed": self.seed, "split": split, **about}
        place = folder / f"{self.task}-{self.key}.{'csv' if self.task in TABLES else 'npz'}"
        if not place.exists():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = place.with_suffix(".new")
            (_write_table if self.task in TABLES else _write_arrays)(fresh, self.given())
            fresh.rename(place)
        kind: dict[str, object] = {"source": "csv", "target": "y", "task": _kind(self.task)}
        if self.task not in TABLES:
            kind = {"source": "npz", "pixels": "hw", "task": "classification"}
        return {**kind, "path": str(place), "split": split, "duplicates": "keep"}

    def given(self) -> Arrays:
        """The rows as the session's file has them."""
        clean = clean_rows(self.task, self.seed)[0]
        x, y = clean["x"].astype(np.float64), clean["y"]
        chance = np.random.default_rng([self.seed, 7])
        if self.few:
            x, y = x[: max(self.few, FEWEST)], y[: max(self.few, FEWEST)]
        if self.rare:
            kept = np.ones(len(y), bool)
            for label in range(self.rare_classes):
                kept[np.flatnonzero(y == label)[self.rare :]] = False
            x, y = x[kept], y[kept]
        y = _with_noise(self.task, y, self.noise, chance, otherwise=self.otherwise)
        x = self.seen(x, y, chance, told=True)
        if self.poison:
            spoiled = chance.choice(len(x), self.poison, replace=False)
            x[spoiled] = np.where(chance.random(x[spoiled].shape) < 0.5, -3e38, 3e38)
        return {"x": x.astype(np.float32), "y": y}

    def unseen(self) -> Arrays | None:
        """Clean rows in the same form; None for tokens, of which a session without any fault holds some back."""
        if form(self.task) == "tokens":
            return None
        clean = clean_rows(self.task, self.seed)[1]
        x = self.seen(clean["x"].astype(np.float64), clean["y"], np.random.default_rng([self.seed, 8]), told=False)
        return {"x": x.astype(np.float32), "y": clean["y"]}

    def seen(self, x: np.ndarray, y: np.ndarray, chance: np.random.Generator, *, told: bool) -> np.ndarray:
        """Features as files have them; what leaks is `told` where the answer was known, and is chance elsewhere."""
        origin = clean_rows(self.task, self.seed)[0]["x"].astype(np.float64)
        if self.scaled:
            x = (x - origin.mean(0)) / np.maximum(origin.std(0), 1e-3)
        if self.units:
            per = np.random.default_rng([self.seed, 9]).random(x.shape[1:])
            x = (x + per) * self.units**per
        if self.leak:
            answer = np.array(y, np.float64) if told else chance.permutation(np.array(y, np.float64))
            if self.otherwise:
                answer = _coded(self.task, answer)
            hint = self.leak * (answer - answer.mean()) / max(float(answer.std()), 1e-6)
            hint += 0.02 * self.leak * chance.standard_normal(len(y))
            if x.ndim == 2:
                x = np.concatenate([x, hint[:, None]], axis=1)
            else:
                x = x.copy()
                corner = np.s_[:, :3, :3] if not self.otherwise else np.s_[:, :, -2:]
                x[corner] = hint[:, None, None]
        return x


def _coded(task: str, answer: np.ndarray) -> np.ndarray:
    """What tells the answer without being it: a code of each class, or a curve of a number."""
    if task in CLASSES:
        return np.random.default_rng([CLASSES[task], 6]).permutation(CLASSES[task])[answer.astype(int)].astype(float)
    return np.exp(1.5 * (answer - answer.mean()) / max(float(answer.std()), 1e-6))


def _kind(task: str) -> str:
    return "regression" if form(task) == "diabetes" else "classification"


def _with_noise(
    task: str, y: np.ndarray, share: float, chance: np.random.Generator, *, otherwise: bool = False
) -> np.ndarray:
    """Answers of which a share is wrong: another class, or the answer of another row."""
    wrong = np.flatnonzero(chance.random(len(y)) < share)
    y = y.copy()
    if form(task) == "diabetes":
        y[wrong] = (
            y[wrong] + 3 * y.std() * chance.standard_normal(len(wrong)) if otherwise else chance.permutation(y[wrong])
        )
    elif otherwise:
        y[wrong] = (y[wrong] + 1) % CLASSES[task]
    elif len(wrong):
        y[wrong] = (y[wrong] + chance.integers(1, CLASSES[task], len(wrong))) % CLASSES[task]
    return y


def _write_table(place: Path, rows: Mapping[str, np.ndarray]) -> None:
    x, y = rows["x"].reshape(len(rows["x"]), -1), rows["y"]
    whole = y.dtype.kind == "i"
    with place.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([*(f"f{n}" for n in range(x.shape[1])), "y"])
        for features, answer in zip(x.tolist(), y.tolist(), strict=True):
            lines.writerow([*map(repr, features), f"class {answer}" if whole else repr(answer)])


def _write_arrays(place: Path, rows: Mapping[str, np.ndarray]) -> None:
    with place.open("wb") as file:
        np.savez(file, **dict(rows))


@cache
def clean_rows(task: str, seed: int) -> tuple[Arrays, Arrays]:
    """All clean rows of a task in an order of chance: those that sessions may be given, and those they never see."""
    x, y = _ORIGINS[task](seed)
    order = np.random.default_rng([seed, 5]).permutation(len(y))
    x, y = x[order], y[order]
    aside = len(y) // (2 if task in ("blobs", "spirals", "waves") else 4)
    return {"x": x[aside:], "y": y[aside:]}, {"x": x[:aside], "y": y[:aside]}


def _digits(_: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x / 16, y.astype(np.int64)


def _breast_cancer(_: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_breast_cancer(return_X_y=True)
    return x, y.astype(np.int64)


def _diabetes(_: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    return x, y


def _blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds in six dimensions; of twenty rows the first has one."""
    chance = np.random.default_rng([seed, 1])
    y = np.where((number := np.arange(1800)) % 20 == 0, 0, 1 + number % 2)
    centers = 2.2 * np.random.default_rng([seed, 2]).standard_normal((3, 6))
    return centers[y] + 1.3 * chance.standard_normal((len(y), 6)), y.astype(np.int64)


def _images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A pattern of 12 x 12 light and dark cells per class, moved by up to two pixels, under noise."""
    chance = np.random.default_rng([seed, 3])
    patterns = np.kron(np.random.default_rng([seed, 4]).random((CLASSES["images"], 4, 4)) < 0.5, np.ones((3, 3)))
    y = np.arange(800) % CLASSES["images"]
    moved = [np.roll(patterns[label], tuple(chance.integers(0, 3, 2)), (0, 1)) for label in y]
    return np.stack(moved) + 0.5 * chance.standard_normal((len(y), 12, 12)), y.astype(np.int64)


def _wine(_: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_wine(return_X_y=True)
    return x, y.astype(np.int64)


def _spirals(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three arms that wind around the origin by a little more than half a turn."""
    chance = np.random.default_rng([seed, 11])
    y = np.arange(1800) % 3
    along = chance.random(len(y))
    turn = 2 * np.pi * (y / 3 + 0.6 * along)
    x = (0.2 + along)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    return x + 0.05 * chance.standard_normal(x.shape), y.astype(np.int64)


def _waves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A sum of sines of three of six features, under a little noise."""
    chance = np.random.default_rng([seed, 12])
    x = chance.uniform(-1, 1, (1200, 6))
    pace = np.random.default_rng([seed, 13]).uniform(1.5, 3.0, 3)
    y = np.sin(pace * x[:, :3] + [0.0, 0.7, 1.4]) @ np.array([3.0, 2.0, 1.5])
    return x, 40 + 10 * (y + 0.3 * chance.standard_normal(len(y)))


def _shapes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ring, a cross, a bar across or a bar down, somewhere on 10 x 10 cells, under noise."""
    chance = np.random.default_rng([seed, 14])
    drawn = np.zeros((4, 5, 5))
    drawn[0, [0, -1], :] = drawn[0, :, [0, -1]] = 1
    drawn[1, 2, :] = drawn[1, :, 2] = 1
    drawn[2, 1:4, :] = 1
    drawn[3, :, 1:4] = 1
    y = np.arange(1000) % 4
    x = 0.3 * chance.standard_normal((len(y), 10, 10))
    for row, label in enumerate(y):
        down, across = chance.integers(0, 6, 2)
        x[row, down : down + 5, across : across + 5] += drawn[label]
    return x, y.astype(np.int64)


_ORIGINS: Mapping[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "digits": _digits,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
    "blobs": _blobs,
    "images": _images,
    "wine": _wine,
    "spirals": _spirals,
    "waves": _waves,
    "shapes": _shapes,
}
