"""What the engine's tests share: one thread, strict determinism, small prepared datasets, and plans over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.request import read_request
from runtime.engine.chance import uniform
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.plan import Plan
from runtime.engine.resolve import resolve

ROWS = {"train": 150, "val": 40, "test": 30}


@pytest.fixture(autouse=True)
def _settled():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def columns(rows, key, shape=(1, 8, 8), classes=4):
    """Rows whose class shows in a quarter of their pixels."""
    x = uniform(key, rows * int(np.prod(shape))).reshape(rows, *shape)
    y = (uniform(key + 1, rows) * classes).astype(np.int64)
    x.reshape(rows, -1)[np.arange(rows), y] += 3
    return {"x": x, "y": y}


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


def planned(dataset, *, resolved=None, **sections):
    """A plan over a dataset: small mlp, 12 epochs of batches of 16, windows of 10, unless said otherwise."""
    raw = {
        "data": {"source": "csv", "path": "x.csv", "target": "y"},
        "model": {"architecture": "mlp", "hidden": [16], "dropout": 0.2},
        "training": {"epochs": 12, "batch_size": 16},
        **sections,
    }
    request = read_request(raw)
    numbers = resolve(request, dataset.facts, cores=2)
    return Plan(request, replace(numbers, **{"window": 10, "every_steps": 20, **(resolved or {})}))


def finished(run):
    """Every report until the run is finished."""
    reports = []
    while not run.finished:
        reports.append(run.advance())
    return reports
