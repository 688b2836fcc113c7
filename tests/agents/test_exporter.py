from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch

from agents.exporter import gates
from agents.exporter.agent import Exporter
from agents.exporter.jobs import parity
from agents.exporter.plan import FORMATS, Order, order_of, orders
from bus.blobs import DirectoryBlobs
from contracts import envelope
from contracts.checkpoint_keeper import CheckpointStored
from contracts.data_manager import DatasetPrepared
from contracts.envelope import Fact
from contracts.event import Event
from contracts.exporter import ExportRefused, ModelBenchmarked, ModelExported
from contracts.ids import ZERO, new_uuid, session_id
from contracts.operator import ExportRequested, SessionRequested
from contracts.request import read_request
from contracts.trainer import CheckpointWritten, TrainingCompleted
from runtime.children import Children
from runtime.engine import checkpoint, dataset, digest, state
from runtime.engine.facts import describe
from runtime.engine.learner import Learner
from runtime.ground import Case
from runtime.history import History
from runtime.home import Home
from runtime.profiles import torch_profile

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"architecture": "mlp", "hidden": [32], "dropout": 0.1},
    "cnn": {"architecture": "cnn", "channels": [8, 16]},
    "linear": {"architecture": "linear"},
}


def session_of(events: list[tuple[str, Event]], kind: str = "training") -> History:
    """A history as the log would tell it: every event in its lane, each caused by the one before."""
    history = History(session_id(new_uuid()))
    for lane, event in events:
        tell(history, lane, event)
    return history


def tell(history: History, lane: str, *events: Event) -> tuple[Fact, ...]:
    facts = []
    for event in events:
        seq = history.size + len(facts) + 1
        body = envelope.write(
            event,
            id=f"event-{seq}",
            session=history.id,
            lane=lane,
            laneseq=seq,
            prev=ZERO,
            source="tests",
            time=envelope.timestamp(),
        )
        written, read = envelope.read(body)
        facts.append(Fact(seq, seq, written, read, ZERO))
    history.add(facts)
    return tuple(facts)


class Place:
    """A home with a prepared dataset and one model of each kind, trained for a moment."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.blobs = DirectoryBlobs(root / "blobs")
        self.dataset = self._digits()
        self.trained = {name: self._train(model) for name, model in MODELS.items()}

    def _digits(self) -> dataset.Dataset:
        from sklearn.datasets import load_digits

        found = load_digits()
        x = found.images.astype("<f4").reshape(-1, 1, 8, 8)
        y = found.target.astype("<i8")
        cuts = {"train": slice(0, 1000), "val": slice(1000, 1300), "test": slice(1300, None)}
        splits = {name: {"x": x[cut], "y": y[cut]} for name, cut in cuts.items()}
        made = dataset.write(
            self.blobs.root / "fresh", splits, describe(splits, "classification", labels=list("0123456789"))
        )
        place = self.blobs.root / "datasets" / made.root
        place.parent.mkdir()
        (self.blobs.root / "fresh").rename(place)
        return dataset.Dataset.open(place)

    def _train(self, model: dict[str, Any]) -> tuple[dict[str, Any], checkpoint.Checkpoint, str]:
        request = read_request({"data": {"source": "digits"}, "model": model, "training": {"epochs": 1}})
        learner = Learner(request, self.dataset.facts)
        net = learner.build()
        rows = {name: torch.from_numpy(np.array(one)) for name, one in self.dataset.columns("train").items()}
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
        net.train()
        for step in range(60):
            batch = {name: one[step * 16 % 960 :][:64] for name, one in rows.items()}
            loss = torch.nn.functional.cross_entropy(net(batch["x"]), batch["y"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        kept = checkpoint.seal(state.copied(state.weights(net)), 60, state.aliases(net))
        return request.resolved(), kept, self.blobs.put(checkpoint.pack(kept))

    def events(self, model: str, **export: Any) -> list[tuple[str, Event]]:
        """A session up to the end of its training."""
        request, kept, blob = self.trained[model]
        facts = self.dataset.facts
        asked = SessionRequested(kind="training", request={**request, "export": export}, keyring=ZERO, asked_by="tests")
        prepared = DatasetPrepared(
            root=self.dataset.root,
            rows=sum(facts.rows.values()),
            splits=dict(facts.rows),
            bytes=1,
            source="digits",
            source_digest=ZERO,
            facts=facts.as_json(),
            findings=[],
        )
        names = {"state_root": kept.state_root, "blob": blob}
        written = CheckpointWritten(
            segment=1, step=60, reason="final", weights_digest=kept.weights_digest, bytes=1, **names
        )
        stored = CheckpointStored(segment=1, step=60, bytes=1, kept_as=["last"], **names)
        done = TrainingCompleted(
            segment=1,
            step=60,
            epochs=1,
            stopped_early=False,
            best_step=60,
            weights_digest=kept.weights_digest,
            state_root=kept.state_root,
            final_blob=blob,
            values={},
        )
        return [
            ("operator", asked),
            ("data_manager", prepared),
            ("trainer", written),
            ("checkpoint_keeper", stored),
            ("trainer", done),
        ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("home"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def children() -> AsyncIterator[Children]:
    children = Children()
    await children.warm(torch_profile())
    yield children
    await children.close()


@pytest.fixture
def exporter(place: Place, children: Children) -> Exporter:
    return Exporter(SimpleNamespace(home=place.home, blobs=place.blobs, children=children))


async def answers(exporter: Exporter, history: History) -> list[Event]:
    """What the exporter says to the last event of a history."""
    said: list[Event] = []

    async def say(*events: Event, epoch: int | None = None) -> tuple[Fact, ...]:
        said.extend(events)
        return tell(history, "exporter", *events)

    case = Case(history.facts[-1], history.state, history, exporter.ground, history.size)
    heard = history.facts[-1].event
    if isinstance(heard, SessionRequested):
        said += await exporter.cite(heard, case)
    elif isinstance(heard, ExportRequested):
        await exporter.oblige(heard, case, say)
    else:
        await exporter.leave(heard, case, say)
    return said


async def exported(exporter: Exporter, place: Place, model: str, **export: Any) -> ModelExported:
    said = await answers(exporter, session_of(place.events(model, **export)))
    assert [type(one) for one in said if not isinstance(one, ModelBenchmarked)][-1] is ModelExported, said
    return [one for one in said if isinstance(one, ModelExported)][-1]


def shown(place: Place, history: History, made: ModelExported) -> Path:
    return place.home.sessions / history.id / "exports" / made.filename


@pytest.mark.parametrize("model", MODELS)
async def test_an_onnx_file_answers_like_the_trained_model_at_every_batch_size(
    exporter: Exporter, place: Place, model: str
) -> None:
    history = session_of(place.events(model, formats=["onnx"]))
    made, *timed = await answers(exporter, history)
    assert isinstance(made, ModelExported)
    assert made.rows_compared >= 64
    assert made.parity["max_abs"] <= 1e-4 * max(1.0, made.parity["reference_max"])
    assert made.parity["argmax_agreement"] == 1
    assert made.parity["accuracy"] == made.parity["reference_accuracy"]
    assert made.opset == 20
    assert {one.batch for one in timed if isinstance(one, ModelBenchmarked)} == {1, 32}
    assert shown(place, history, made).read_bytes() == place.blobs.get(made.blob)
    assert history.state.exports and not orders(history.state)


async def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(exporter: Exporter, place: Place) -> None:
    for model, export in (
        ("mlp", {"formats": ["onnx"], "quantize": ["int8"]}),
        ("cnn", {"formats": ["onnx"], "quantize": ["int8"]}),
        ("cnn", {"formats": ["safetensors"]}),
        ("cnn", {"formats": ["pt2"]}),
    ):
        first = await exported(exporter, place, model, **export)
        again = await exported(exporter, place, model, **export)
        assert first.blob == again.blob, (model, export)
