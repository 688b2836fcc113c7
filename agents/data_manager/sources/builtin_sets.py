"""Sets that need no file of the user's: those of scikit-learn, and generated ones."""

import gzip
import importlib.util
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import Scratch
from agents.data_manager.source import Columns, DataTable, unusable
from contracts.request.data import Blobs, BreastCancer, Circles, Diabetes, Digits, Images, Iris, Tokens, Wine
from contracts.request.data import Generated as GeneratedData
from runtime.engine.random_keys import mix, spread, uniform

Bundle = Digits | BreastCancer | Wine | Iris | Diabetes
Files = Sequence[bytes]

_IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
_DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
_WINE = (
    *("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids"),
    *("nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline"),
)
_TUMOUR = (
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points"),
    *("symmetry", "fractal dimension"),
)
_BREAST_CANCER = (*(f"mean {name}" for name in _TUMOUR), *(f"{name} error" for name in _TUMOUR))
_BREAST_CANCER += tuple(f"worst {name}" for name in _TUMOUR)


class BundledSource:
    """One bundled set; its digest is that of the files it is read from."""

    def __init__(self, data: Bundle) -> None:
        self.name: str = data.source
        names, self._build = _SETS[type(data)]
        spec = importlib.util.find_spec("sklearn")
        self._files: list[bytes] = []
        for name in names:
            place = Path(spec.origin).parent / "datasets" / "data" / name if spec and spec.origin else Path(name)
            try:
                content = place.read_bytes()
            except OSError:
                cure = "Install the scikit-learn that `constraints.txt` names."
                message = f"scikit-learn's file {name!r} is not in its place ({place})"
                raise unusable("data.source", message, cure) from None
            self._files.append(gzip.decompress(content) if name.endswith(".gz") else content)
        self.digest = str(blake3(b"\0".join(self._files)).hexdigest())

    def read(self, findings: Findings) -> DataTable:
        """All rows; they are known to be sound."""
        return self._build(self._files)


def _digits(files: Files) -> DataTable:
    rows = _numbers(files[0], ",")
    x = rows[:, :64].reshape(-1, 1, 8, 8).astype(np.float32)
    return DataTable("classification", {"x": x, "y": rows[:, 64].astype(np.int64)}, tuple("0123456789"))


def _diabetes(files: Files) -> DataTable:
    x, y = _numbers(files[0], None).astype(np.float32), _numbers(files[1], None).astype(np.float32)
    columns = {"x": x, "y": y.reshape(-1)}
    return DataTable("regression", columns, (), _DIABETES)


def _labelled(features: tuple[str, ...]) -> Callable[[Files], DataTable]:
    """A reader of files whose first line has the number of rows and of features, then the labels."""

    def build(files: Files) -> DataTable:
        header, _, body = files[0].partition(b"\n")
        _, _, *labels = header.decode().strip().split(",")
        rows = _numbers(body, ",")
        columns: Columns = {"x": rows[:, :-1].astype(np.float32), "y": rows[:, -1].astype(np.int64)}
        return DataTable("classification", columns, tuple(labels), features)

    return build


def _numbers(text: bytes, delimiter: str | None) -> np.ndarray:
    return np.loadtxt(io.BytesIO(text), delimiter=delimiter, dtype=np.float64, ndmin=2)


_SETS: dict[type[Bundle], tuple[tuple[str, ...], Callable[[Files], DataTable]]] = {
    Digits: (("digits.csv.gz",), _digits),
    Iris: (("iris.csv",), _labelled(_IRIS)),
    Wine: (("wine_data.csv",), _labelled(_WINE)),
    BreastCancer: (("breast_cancer.csv",), _labelled(_BREAST_CANCER)),
    Diabetes: (("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz"), _diabetes),
}


GENERATION = 1
"""Raised when the same arguments would give other rows."""

_CENTERS, _NOISE, _PATTERNS, _SHIFTS, _FOLLOWERS, _TOKENS, _STRAYS = range(1, 8)
_GRID = 2.0**20
_COARSE = 4

_STORED = 4
"""Bytes of a value on the disk."""

_TOKENS_HELD, _FEATURES_HELD = 8, 20
"""Bytes of memory per value, at least, while rows are made: two arrays of tokens; of features two exact, one stored."""


class GeneratedSource:
    """One generated set; its digest is that of its arguments."""

    def __init__(self, data: GeneratedData, scratch: Scratch) -> None:
        self.name: str = data.source
        self._data, self._scratch = data, scratch
        about = data.model_dump(mode="json", exclude={"split"}) | {"generation": GENERATION}
        self.digest = str(blake3(json.dumps(about, sort_keys=True).encode()).hexdigest())

    def read(self, findings: Findings) -> DataTable:
        """All rows; the classes, where there are any, take turns. Raises `InvalidRequest` when they do not fit here."""
        stored = self._data.rows * _values(self._data) * _STORED
        self._scratch.refuse_beyond("the generated rows", "data.rows", disk=stored, held=held_by(self._data))
        if isinstance(self._data, Tokens):
            return DataTable("sequences", {"x": _tokens(self._data)})
        classes = 2 if isinstance(self._data, Circles) else self._data.classes
        y = np.arange(self._data.rows, dtype=np.int64) % classes
        x = _features(self._data, y)
        return DataTable(
            "classification", {"x": x.astype(np.float32), "y": y}, tuple(map(str, range(int(y.max()) + 1)))
        )


def _values(data: GeneratedData) -> int:
    """How many numbers a row has, its label aside."""
    match data:
        case Blobs():
            return data.features
        case Images():
            return data.height * data.width * data.channels
        case Tokens():
            return data.length
        case _:
            return 2


def held_by(data: GeneratedData) -> int:
    """How many bytes of memory making all rows takes, at least; also the centers of blobs, of which few rows may be."""
    made = data.rows + (data.classes if isinstance(data, Blobs) else 0)
    return made * _values(data) * (_TOKENS_HELD if isinstance(data, Tokens) else _FEATURES_HELD)


def _features(data: Blobs | Circles | Images, y: np.ndarray) -> np.ndarray:
    """The features of rows of these classes."""
    match data:
        case Blobs():
            return _blobs(data, y)
        case Circles():
            return _circles(data, y)
        case Images():
            return _images(data, y)


def _blobs(data: Blobs, y: np.ndarray) -> np.ndarray:
    places = uniform(mix(data.seed, _CENTERS), data.classes * data.features).astype(np.float64)
    centers = (places * 20 - 10).reshape(data.classes, data.features)
    x: np.ndarray = centers[y] + data.spread * _normal(data.seed, (data.rows, data.features))
    return x


def _circles(data: Circles, y: np.ndarray) -> np.ndarray:
    turn = np.arange(data.rows) // 2 * (4 * math.pi / data.rows)
    # Sines differ in their last bits from machine to machine; on this grid they do not.
    ring = np.round(np.stack([np.cos(turn), np.sin(turn)], axis=1) * _GRID) / _GRID
    radius = np.where(y == 0, 1.0, data.factor)[:, None]
    return ring * radius + data.noise * _normal(data.seed, (data.rows, 2))


def _images(data: Images, y: np.ndarray) -> np.ndarray:
    """A coarse pattern of light and dark per class and channel, shifted by up to a cell, under noise."""
    lit = uniform(mix(data.seed, _PATTERNS), data.classes * data.channels * _COARSE**2) < 0.5
    patterns = lit.reshape(data.classes, data.channels, _COARSE, _COARSE)
    down, across = (_cells(data, axis, side) for axis, side in enumerate((data.height, data.width)))
    channel = np.arange(data.channels)[None, :, None, None]
    x = patterns[y[:, None, None, None], channel, down[:, None, :, None], across[:, None, None, :]]
    noisy: np.ndarray = x + data.noise * _normal(data.seed, x.shape)
    return noisy


def _cells(data: Images, axis: int, side: int) -> np.ndarray:
    """For every row and pixel along an axis, the cell of the pattern it shows."""
    shift = (uniform(mix(data.seed, _SHIFTS, axis), data.rows) * (side // _COARSE + 1)).astype(np.int64)
    return (np.arange(side) + shift[:, None]) % side * _COARSE // side


def _tokens(data: Tokens) -> np.ndarray:
    """Each token follows from the last or from the one before it, as a coin says, or from nothing."""
    after = [_whole(spread(mix(data.seed, _FOLLOWERS, back), np.arange(data.vocabulary)), data) for back in (0, 1)]
    rows = np.empty((data.length, data.rows), np.int32)
    numbers = np.arange(data.rows)
    for place in range(data.length):
        coin = uniform(mix(data.seed, _TOKENS, place), data.rows)
        rows[place] = _whole(spread(mix(data.seed, _STRAYS, place), numbers), data)
        if place > 1:
            follows = np.where(coin < (1 + data.noise) / 2, after[0][rows[place - 1]], after[1][rows[place - 2]])
            rows[place] = np.where(coin < data.noise, rows[place], follows)
    return np.ascontiguousarray(rows.T)


def _whole(drawn: np.ndarray, data: Tokens) -> np.ndarray:
    return ((drawn >> np.uint64(32)) * np.uint64(data.vocabulary) >> np.uint64(32)).astype(np.int32)


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Sums of twelve uniforms: nearly normal, and exact, which logarithms and cosines are not."""
    values = np.full(math.prod(shape), -6.0)
    for part in range(12):
        values += uniform(mix(seed, _NOISE, part), values.size)
    return values.reshape(shape)
