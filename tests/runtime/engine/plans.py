"""What the engine's tests make their sessions from: rows, plans over prepared rows, runs to the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from contracts.request import read_request
from runtime.engine.plan import Plan
from runtime.engine.random_keys import uniform
from runtime.engine.resolve import resolve

ROWS = {"train": 150, "val": 40, "test": 30}


def columns(rows, key, shape=(1, 8, 8), classes=4):
    """Rows whose class shows in a quarter of their pixels."""
    x = uniform(key, rows * int(np.prod(shape))).reshape(rows, *shape)
    y = (uniform(key + 1, rows) * classes).astype(np.int64)
    x.reshape(rows, -1)[np.arange(rows), y] += 3
    return {"x": x, "y": y}


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
