"""The sets that come with scikit-learn, read from its files: no import of it, which would take over a second."""

from __future__ import annotations

import gzip
import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.table import Columns, DataTable, unusable
from contracts.request.data import BreastCancer, Diabetes, Digits, Iris, Wine

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
_BREAST_CANCER = (*(f"mean {one}" for one in _TUMOUR), *(f"{one} error" for one in _TUMOUR))
_BREAST_CANCER += tuple(f"worst {one}" for one in _TUMOUR)


class BundledSource:
    """One bundled set; its digest is that of the files it is read from."""

    def __init__(self, data: Bundle) -> None:
        self.name: str = data.source
        names, self._build = _SETS[type(data)]
        self._files = [_file(name) for name in names]
        self.digest = str(blake3(b"\0".join(self._files)).hexdigest())

    def read(self, findings: Findings) -> DataTable:
        """All rows; they are known to be sound."""
        return self._build(self._files)


def _file(name: str) -> bytes:
    spec = importlib.util.find_spec("sklearn")
    place = Path(spec.origin).parent / "datasets" / "data" / name if spec and spec.origin else Path(name)
    try:
        packed = place.read_bytes()
    except OSError:
        cure = "Install the scikit-learn that `constraints.txt` names."
        raise unusable("data.source", f"scikit-learn's file {name!r} is not in its place ({place})", cure) from None
    return gzip.decompress(packed) if name.endswith(".gz") else packed


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
