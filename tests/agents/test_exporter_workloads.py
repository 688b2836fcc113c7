"""Models of users' own: what they predict by is what is exported, and what cannot be exported is said in a sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.exporter.agent import Exporter
from agents.exporter.plan import ExportOrder
from bus.blobs import DirectoryBlobs
from contracts.event import Event
from contracts.exporter import ExportRefused, ModelExported
from contracts.ids import new_uuid, session_id
from contracts.request import read_request
from runtime.engine import checkpoint, dataset, state
from runtime.engine.facts import describe
from runtime.engine.learner import Learner
from runtime.engine.ragged import Ragged
from runtime.engine.workload import register
from runtime.home.home import Home
from runtime.home.workloads import Workloads
from runtime.home.workloads import load as load_workload
from runtime.jobs.children import Children
from runtime.log.session_log import SessionLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOURCE = """
import torch
from torch import nn

from stigmergy import Workload


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Embedding(10, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, numbers, kind):
        return self.head(torch.relu(self.left(numbers) + self.right(kind)))


class Judged(Workload):
    def loss(self, model, batch):
        return nn.functional.cross_entropy(self.predict(model, batch), batch["y"])


class TwoColumns(Judged):
    def build(self, o, facts):
        return Pairs()

    def predict(self, model, batch):
        return model(batch["numbers"], batch["kind"])


class Summed(Judged):
    def predict(self, model, batch):
        return model(batch["numbers"]) + batch["kind"].unsqueeze(1)


class Undecided(nn.Linear):
    def forward(self, numbers):
        return super().forward(numbers) if numbers.sum() > 0 else super().forward(-numbers)


class Branching(Summed):
    def build(self, o, facts):
        return Undecided(3, 2)


class Counting(nn.Linear):
    def forward(self, numbers):
        return super().forward(numbers.reshape(2, 3))


class Sized(Summed):
    def build(self, o, facts):
        return Counting(3, 2)


class Silent(Judged):
    def build(self, o, facts):
        return nn.Embedding(10, 2)


class Worded(Judged):
    def build(self, o, facts):
        return nn.Embedding(10, 2)

    def predict(self, model, batch):
        lengths = batch["ids.offsets"].diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        return torch.zeros(len(lengths), 2).index_add(0, owner, model(batch["ids"]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    chance = np.random.default_rng(0)

    def rows(count: int) -> dict[str, np.ndarray]:
        kind = chance.integers(0, 10, count)
        return {"numbers": chance.normal(size=(count, 3)).astype("<f4"), "kind": kind, "y": kind % 2}

    splits = {"train": rows(200), "val": rows(20), "test": rows(20)}
    made = dataset.write(home.blobs / "fresh", splits, describe(splits, "classification"))
    (home.blobs / "datasets").mkdir()
    (home.blobs / "fresh").rename(home.blobs / "datasets" / made.root)
    (home.root / "mine.py").write_text(SOURCE)
    return home


@pytest.fixture(scope="module")
def worded_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose only dataset has a column of tokens, of any number in each row."""
    home = Home(tmp_path_factory.mktemp("worded"))

    def rows(count: int) -> dict[str, Any]:
        ids = Ragged.of([np.arange(at % 7) % 10 for at in range(count)])
        return {"ids": ids, "y": np.arange(count) % 2}

    splits = {"train": rows(200), "val": rows(20), "test": rows(20)}
    made = dataset.write(home.blobs / "fresh", splits, describe(splits, "classification"))
    (home.blobs / "datasets").mkdir()
    (home.blobs / "fresh").rename(home.blobs / "datasets" / made.root)
    (home.root / "mine.py").write_text(SOURCE)
    return home


async def exported(home: Home, children: Children, name: str, form: str = "onnx") -> Event:
    """The exporter's first answer for a fresh model of one workload."""
    one = await Workloads(home.root).add(f"{home.root / 'mine.py'}:{name}", children, name=name)
    register(name, load_workload(one.path, one.class_name, one.digest))
    root = next((home.blobs / "datasets").iterdir()).name
    facts = dataset.Dataset.open(home.blobs / "datasets" / root).facts
    asked: dict[str, Any] = {
        "data": {"source": "workload", "workload": name},
        "model": {"architecture": "workload", "workload": name},
    }
    request = read_request(asked)
    net = Learner(request, facts).build()
    kept = checkpoint.seal(state.copied(state.weights(net)), 1, state.aliases(net))
    blobs = DirectoryBlobs(home.blobs)
    order = ExportOrder(
        format=form,
        quantize="",
        wanted="best",
        step=1,
        blob=blobs.put(checkpoint.pack(kept)),
        state_root=kept.state_root,
        dataset=root,
        request=request.resolved(),
    )
    exporter = Exporter(SimpleNamespace(home=home, blobs=blobs, children=children))
    history = SessionLog(session_id(new_uuid()))
    first, *_ = await exporter._make(order, SimpleNamespace(history=history))  # type: ignore[arg-type]
    return first


@pytest.mark.parametrize("form", ["onnx", "pt2", "safetensors"])
async def test_every_column_that_a_workload_predicts_by_is_an_input_of_the_file(
    home: Home, children: Children, form: str
) -> None:
    made = await exported(home, children, "TwoColumns", form)
    assert isinstance(made, ModelExported), made
    assert made.rows_compared == 64
    if form == "onnx":
        import onnx

        graph = onnx.load_from_string(DirectoryBlobs(home.blobs).get(made.blob)).graph
        assert sorted(one.name for one in graph.input) == ["kind", "numbers"]
        assert {one.type.tensor_type.shape.dim[0].dim_param for one in graph.input} == {"batch"}


async def test_a_model_that_decides_by_its_data_is_refused_with_the_reason(home: Home, children: Children) -> None:
    refused = await exported(home, children, "Branching")
    assert isinstance(refused, ExportRefused)
    assert refused.code == "unsupported"
    assert "data-dependent" in refused.message
    assert "safetensors" in refused.cure


async def test_a_model_that_takes_the_batch_size_for_a_constant_is_caught(home: Home, children: Children) -> None:
    refused = await exported(home, children, "Sized")
    assert isinstance(refused, ExportRefused)
    assert refused.code == "fixed-batch"
    assert "numbers" in refused.message


async def test_weights_of_a_model_that_reads_rows_of_any_length_are_exported(
    worded_home: Home, children: Children
) -> None:
    made = await exported(worded_home, children, "Worded", "safetensors")
    assert isinstance(made, ModelExported), made
    assert (made.rows_compared, made.details.rows_judged) == (64, 20)


@pytest.mark.parametrize("form", ["onnx", "pt2", "torchscript"])
async def test_a_graph_of_a_model_that_reads_rows_of_any_length_is_refused_by_the_columns_name(
    worded_home: Home, children: Children, form: str
) -> None:
    refused = await exported(worded_home, children, "Worded", form)
    assert isinstance(refused, ExportRefused)
    assert refused.code == "any-length"
    assert "'ids', whose rows have any length" in refused.message
    assert "safetensors" in refused.cure
    assert "pad the rows" in refused.cure


async def test_a_model_of_which_nobody_said_from_what_it_answers_is_refused(
    worded_home: Home, children: Children
) -> None:
    refused = await exported(worded_home, children, "Silent", "safetensors")
    assert isinstance(refused, ExportRefused)
    assert (refused.code, "'ids'" in refused.message, "`predict`" in refused.cure) == ("no-answers", True, True)
