"""A whole training session in a recorded home, with all a bundle can hold: rows, sources, exports, checkpoints."""

from __future__ import annotations

import numpy as np

from contracts.checkpoint_keeper import CheckpointPruned, CheckpointStored
from contracts.data_manager import DatasetFacts, DatasetPrepared, Origins
from contracts.event import Event
from contracts.trainer import CheckpointWritten
from runtime.engine import dataset
from runtime.engine.facts import describe
from tests.runtime.recorded_home import DIGEST, RecordedHome, claimed, completed, evaluated, exported, window


class FootprintEstimated(Event, wire="footprint.estimated"):
    """What a guest says that nobody here has a schema for."""

    grams: float


def full_session(recorded: RecordedHome, *, seal: bool = True, guest: bool = True) -> str:
    """From genesis to seal: rows, code, first weights, kept and pruned checkpoints, two exports, a guest, notes."""
    session = recorded.requested()
    made = prepared(recorded)
    recorded.say(session, "data_manager", made)
    sources = {f"mine/{name}.py": recorded.blobs.put(f"# {name}\n".encode()) for name in ("model", "data")}
    begun = recorded.blobs.put(b"weights to begin with")
    claim = claimed().model_copy(update={"sources": sources, "initial": begun, "dataset": made.root})
    recorded.say(session, "trainer", claim)
    for n in range(6):
        recorded.say(session, "trainer", window(50 * n, 50 * n + 50), evaluated(50 * n + 50, 0.5 / (n + 1)))
        recorded.say(session, "trainer", written(recorded, 50 * n + 50))
        recorded.say(session, "checkpoint_keeper", stored(recorded, 50 * n + 50))
        if n == 2:
            recorded.say(session, "ledger", recorded.noted(session))
    recorded.say(session, "checkpoint_keeper", pruned(recorded, 50), pruned(recorded, 100))
    recorded.say(session, "trainer", completed(recorded.blobs.put(state(300)), 0.5 / 6))
    if guest:
        recorded.say(session, "guest_ant", FootprintEstimated(grams=12.5))
    for name in ("model.onnx", "model.safetensors"):
        blob = recorded.blobs.put(f"exported as {name}".encode())
        made = exported(blob, recorded.blobs.put(state(300)))
        recorded.say(session, "exporter", made.model_copy(update={"filename": name}))
    if seal:
        recorded.say(session, "ledger", recorded.seal(session))
    return session


def prepared(recorded: RecordedHome, *, columns: int = 4) -> DatasetPrepared:
    """A dataset in the store."""
    rng = np.random.default_rng(7)
    splits = {
        split: {"x": rng.normal(size=(rows, columns)).astype("<f4"), "y": rng.integers(0, 3, rows).astype("<i8")}
        for split, rows in {"train": 40, "val": 10}.items()
    }
    facts = describe(splits, "classification")
    made = dataset.write(recorded.home.blobs / "datasets" / "new", splits, facts)
    place = recorded.home.blobs / "datasets" / made.root
    if not place.exists():
        (recorded.home.blobs / "datasets" / "new").rename(place)
    return DatasetPrepared(
        root=made.root,
        rows=50,
        splits={"train": 40, "val": 10},
        bytes=1200,
        source="generated",
        source_digest=DIGEST,
        facts=DatasetFacts(task="other"),
        findings=[],
        origins=Origins(
            called="row", blobs={split: numbers(recorded, rows) for split, rows in (("train", 40), ("val", 10))}
        ),
    )


def numbers(recorded: RecordedHome, rows: int) -> str:
    """The numbers of some rows in their source, as a blob."""
    return recorded.blobs.put(np.arange(1, rows + 1, dtype="<i8").tobytes())


def state(step: int) -> bytes:
    """The bytes of a checkpoint; longer than one chunk of its digest."""
    return f"state of step {step}\n".encode() * 100


def written(recorded: RecordedHome, step: int) -> CheckpointWritten:
    """A checkpoint whose bytes are in the store."""
    blob = recorded.blobs.put(state(step))
    return CheckpointWritten(
        segment=1, step=step, reason="planned", state_root=DIGEST, weights_digest=DIGEST, blob=blob, bytes=1800
    )


def stored(recorded: RecordedHome, step: int) -> CheckpointStored:
    """The keeper keeps it."""
    blob = recorded.blobs.put(state(step))
    return CheckpointStored(segment=1, step=step, blob=blob, state_root=DIGEST, bytes=1800, kept_as=["anchor"])


def pruned(recorded: RecordedHome, step: int) -> CheckpointPruned:
    """The keeper lets it go."""
    blob = recorded.blobs.put(state(step))
    recorded.blobs.remove(blob)
    return CheckpointPruned(segment=1, step=step, blob=blob, freed_bytes=1800)
