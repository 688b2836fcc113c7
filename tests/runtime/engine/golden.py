"""Trains a few small sessions in a sealed process and prints what their bits are; run by test_golden.py."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from runtime.engine import seal, state
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.fingerprint import fingerprint
from runtime.engine.loop import ENGINE_BITS, Run
from tests.runtime.engine.plans import ROWS, columns, finished, planned

MODELS = {
    "mlp": {"architecture": "mlp", "hidden": [16, 16], "dropout": 0.2},
    "cnn": {"architecture": "cnn", "channels": [4, 8]},
}
MORE = {
    "transformer": {
        "model": {"architecture": "transformer", "width": 8, "heads": 2},
        "loss": {"type": "focal"},
        "optimizer": {"type": "lion", "weight_decay": 0.1},
        "schedule": {"type": "one_cycle", "warmup_steps": 3},
        "gradients": [{"type": "centralise"}, {"type": "grokfast"}, {"type": "clip_value", "limit": 0.1}],
        "sampler": {"type": "grouped"},
    },
    "resnet": {
        "model": {"architecture": "resnet", "width": 4, "blocks": [1, 1]},
        "loss": {"type": "contrastive", "width": 8},
        "optimizer": {"type": "adafactor"},
        "schedule": {"type": "plateau", "patience": 0},
        "sampler": {"type": "balanced"},
        "training": {"epochs": 6, "batch_size": 16, "ema": {"decay": 0.9}, "recompute": True},
    },
    "autoencoder": {
        "model": {"architecture": "autoencoder", "hidden": [16], "code": 4},
        "loss": {
            "type": "multi_task",
            "adaptive": True,
            "terms": [{"name": "far", "loss": {"type": "mse"}}, {"name": "near", "loss": {"type": "huber"}}],
        },
        "schedule": {"type": "composite", "phases": [{"schedule": {"type": "cyclic", "up_steps": 5}}, {}]},
        "sampler": {"type": "weighted", "repeats": [1, 2, 0, 1]},
    },
}


def main() -> None:
    """One JSON object: fingerprint, dataset root, and digests before and after training."""
    seal.apply(profile="exact", threads=1)
    splits = {name: columns(rows, 10 * at) for at, (name, rows) in enumerate(ROWS.items(), 1)}
    with tempfile.TemporaryDirectory() as directory:
        root = write(Path(directory), splits, describe(splits, "classification")).root
        dataset = Dataset.open(Path(directory))
        started, trained, more = {}, {}, {}
        for name, model in MODELS.items():
            run = Run.start(planned(dataset, model=model), dataset)
            started[name] = run.weights_digest()
            reports = finished(run)
            trained[name] = [run.weights_digest(), reports[0].window.index_digest]
        for name, sections in MORE.items():
            run = Run.start(planned(dataset, **sections), dataset)
            begun = run.weights_digest()
            reports = finished(run)
            more[name] = [begun, reports[0].window.index_digest, state.root(run.tensors())]
    print(json.dumps({"engine_bits": ENGINE_BITS, "fingerprint": fingerprint().digest, "root": root,
                      "started": started, "trained": trained, "more": more}))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
