"""What the engine's tests share: one thread, strict determinism, small prepared datasets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.random_keys import uniform
from tests.runtime.engine.plans import ROWS, columns


@pytest.fixture(autouse=True)
def _settled():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A small classification dataset of images."""
    splits = {name: columns(rows, 10 * at) for at, (name, rows) in enumerate(ROWS.items(), 1)}
    directory = tmp_path_factory.mktemp("images")
    write(directory, splits, describe(splits, "classification"))
    return Dataset.open(directory)


@pytest.fixture(scope="session")
def numbers(tmp_path_factory):
    """A small regression dataset, its target far from zero."""
    splits = {}
    for at, (name, rows) in enumerate(ROWS.items(), 1):
        x = uniform(at, rows * 5).reshape(rows, 5)
        splits[name] = {"x": x, "y": (x.sum(1) * 40 + 200).astype(np.float32)}
    directory = tmp_path_factory.mktemp("numbers")
    write(directory, splits, describe(splits, "regression"))
    return Dataset.open(directory)
