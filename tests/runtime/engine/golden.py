"""Trains two small sessions in a sealed process and prints what its bits are; run by test_golden.py."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from runtime.engine import seal
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.fingerprint import fingerprint
from runtime.engine.loop import ENGINE_BITS, Run
from tests.runtime.engine.plans import ROWS, columns, finished, planned

MODELS = {
    "mlp": {"architecture": "mlp", "hidden": [16, 16], "dropout": 0.2},
    "cnn": {"architecture": "cnn", "channels": [4, 8]},
}


def main() -> None:
    """One JSON object: fingerprint, dataset root, and digests before and after training."""
    seal.apply(profile="exact", threads=1)
    splits = {name: columns(rows, 10 * at) for at, (name, rows) in enumerate(ROWS.items(), 1)}
    with tempfile.TemporaryDirectory() as directory:
        root = write(Path(directory), splits, describe(splits, "classification")).root
        dataset = Dataset.open(Path(directory))
        started, trained = {}, {}
        for name, model in MODELS.items():
            run = Run.start(planned(dataset, model=model), dataset)
            started[name] = run.weights_digest()
            reports = finished(run)
            trained[name] = [run.weights_digest(), reports[0].window.index_digest]
    print(json.dumps({"engine_bits": ENGINE_BITS, "fingerprint": fingerprint().digest, "root": root,
                      "started": started, "trained": trained}))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
