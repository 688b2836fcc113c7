from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from agents.exporter.agent import Exporter
from agents.exporter.jobs import formats, make_file, onnx_format, parity, prove_file
from agents.exporter.plan import FORMATS, order_of, orders
from bus.blobs import DirectoryBlobs
from bus.memory import MemoryBus
from contracts import envelope
from contracts.checkpoint_keeper import CheckpointStored
from contracts.data_manager import DatasetFacts, DatasetPrepared
from contracts.envelope import Fact
from contracts.event import Event
from contracts.exporter import ExportOrder, ExportRefused, ModelBenchmarked, ModelExported
from contracts.ids import ZERO, new_uuid, session_id
from contracts.operator import RULES, ExportRequested, SessionRequested
from contracts.request import read_request
from contracts.roles import BUILT_IN
from contracts.trainer import CheckpointWritten, TrainingCompleted
from runtime.engine import checkpoint, dataset, state
from runtime.engine.facts import describe
from runtime.engine.learner import Learner
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.session_log import SessionLog
from runtime.node.agent_context import Wakeup
from runtime.node.capabilities import ExportRefusal
from tests import harness

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"architecture": "mlp", "hidden": [32], "dropout": 0.1},
    "cnn": {"architecture": "cnn", "channels": [8, 16]},
    "linear": {"architecture": "linear"},
}


def session_of(events: list[tuple[str, Event]], kind: str = "training") -> SessionLog:
    """A history as the log would tell it: every event in its lane, each caused by the one before."""
    history = SessionLog(session_id(new_uuid()))
    for lane, event in events:
        tell(history, lane, event)
    return history


def tell(history: SessionLog, lane: str, *events: Event) -> tuple[Fact, ...]:
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
        self.made: dict[str, ModelExported] = {}
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

    def _train(self, model: dict[str, Any]) -> tuple[dict[str, Any], checkpoint.CheckpointContent, str]:
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
        asked = SessionRequested(
            kind="training", request={**request, "export": export}, keyring=ZERO, asked_by="tests", rules=RULES
        )
        prepared = DatasetPrepared(
            root=self.dataset.root,
            rows=sum(facts.rows.values()),
            splits=dict(facts.rows),
            bytes=1,
            source="digits",
            source_digest=ZERO,
            facts=DatasetFacts.model_validate_json(json.dumps(facts.as_json())),
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


@pytest.fixture
def exporter(place: Place, children: Children) -> Exporter:
    return Exporter(SimpleNamespace(home=place.home, blobs=place.blobs, children=children))


async def answers(exporter: Exporter, history: SessionLog) -> list[Event]:
    """What the exporter says to the last event of a history."""
    said: list[Event] = []

    async def say(*events: Event, epoch: int | None = None) -> tuple[Fact, ...]:
        said.extend(events)
        return tell(history, "exporter", *events)

    case = Wakeup(history.facts[-1], history.state, history, exporter.ground, history.size)
    heard = history.facts[-1].event
    if isinstance(heard, SessionRequested):
        said += await exporter.cite(heard, case)
    elif isinstance(heard, ExportRequested):
        await exporter.oblige(heard, case, say)
    else:
        await exporter.leave(heard, case, say)
    return said


async def exported(
    exporter: Exporter, place: Place, model: str, *, again: bool = False, **export: Any
) -> ModelExported:
    """The file made for a fresh session; one that another test has had made is not made again unless it is asked."""
    key = json.dumps([model, export])
    if again or key not in place.made:
        place.made[key] = await freshly(exporter, place, model, **export)
    return place.made[key]


async def freshly(exporter: Exporter, place: Place, model: str, **export: Any) -> ModelExported:
    said = await answers(exporter, session_of(place.events(model, **export)))
    assert [one.message for one in said if isinstance(one, ExportRefused)] == []
    assert [type(one) for one in said if not isinstance(one, ModelBenchmarked)][-1] is ModelExported
    return [one for one in said if isinstance(one, ModelExported)][-1]


def unzipped(path: Path) -> bytes:
    """Everything that a file holds, also inside a compressed archive."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def shown(place: Place, history: SessionLog, made: ModelExported) -> Path:
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
    assert not list(place.home.work(history.id).iterdir())
    assert history.state.training.exports
    assert not orders(history.state)


@pytest.mark.long
async def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(exporter: Exporter, place: Place) -> None:
    for model, export in (
        ("mlp", {"formats": ["onnx"], "quantize": ["int8"]}),
        ("cnn", {"formats": ["onnx"], "quantize": ["int8"]}),
        ("cnn", {"formats": ["safetensors"]}),
        ("cnn", {"formats": ["pt2"]}),
        ("mlp", {"formats": ["torchscript"]}),
    ):
        first = await exported(exporter, place, model, **export)
        again = await exported(exporter, place, model, again=True, **export)
        assert first.blob == again.blob, (model, export)


@pytest.mark.parametrize(
    ("form", "quantize"),
    [("onnx", ""), ("onnx", "int8"), ("onnx", "fp16"), ("pt2", ""), ("safetensors", ""), ("torchscript", "")],
)
async def test_every_format_loads_elsewhere_and_tells_nothing_of_the_machine_that_wrote_it(
    exporter: Exporter, place: Place, form: str, quantize: str
) -> None:
    made = await exported(exporter, place, "mlp", formats=[form], quantize=[quantize] if quantize else [])
    assert (made.format, made.quantize) == (form, quantize)
    content = unzipped(place.blobs.path(made.blob))
    for told in (str(Path.cwd()), str(place.home.root), "site-packages", "agents/exporter", "runtime/engine"):
        assert told.encode() not in content, told


async def test_a_convolution_is_quantised_by_calibration_and_a_plain_network_is_not(
    exporter: Exporter, place: Place
) -> None:
    by_model = {
        model: await exported(exporter, place, model, formats=["onnx"], quantize=["int8"]) for model in ("mlp", "cnn")
    }
    assert by_model["mlp"].details.method == "dynamic"
    assert by_model["cnn"].details.method == "static"
    assert by_model["cnn"].details.calibration.split == "train"
    for made in by_model.values():
        assert made.details.converted_nodes > 0
        assert made.parity["reference_accuracy"] - made.parity["accuracy"] <= 0.01


async def test_weights_are_those_of_the_checkpoint_under_the_names_of_a_state_dict(
    exporter: Exporter, place: Place
) -> None:
    from safetensors.torch import load

    history = session_of(place.events("cnn", formats=["safetensors"]))
    made, *_ = await answers(exporter, history)
    assert isinstance(made, ModelExported)
    request, kept, _ = place.trained["cnn"]
    found = load(place.blobs.get(made.blob))
    net = Learner(read_request(request), place.dataset.facts).build()
    net.load_state_dict(found)
    assert state.root(state.weights(net)) == kept.weights_digest
    assert made.parity["max_abs"] == 0
    beside = (shown(place, history, made).parent / "model.safetensors.config.json").read_bytes()
    assert place.blobs.get(made.details.beside["config.json"]) == beside


async def test_two_formats_wanted_are_two_answers_and_a_restart_makes_only_what_is_missing(
    exporter: Exporter, place: Place
) -> None:
    history = session_of(place.events("mlp", formats=["safetensors", "onnx"]))
    first = orders(history.state)[0]
    done = await answers(exporter, history)
    assert [one.format for one in done if isinstance(one, ModelExported)] == ["safetensors", "onnx"]
    halfway = session_of(place.events("mlp", formats=["safetensors", "onnx"]))
    tell(halfway, "exporter", done[0])
    assert isinstance(first, ExportOrder)
    assert [one.format for one in orders(halfway.state) if isinstance(one, ExportOrder)] == ["onnx"]


async def test_a_wish_made_while_training_runs_is_granted_at_its_end(exporter: Exporter, place: Place) -> None:
    events = place.events("mlp")
    wish = ExportRequested(asked_by="tests", format="safetensors", checkpoint="last")
    early = session_of([*events[:4], ("operator", wish)])
    assert await answers(exporter, early) == []
    tell(early, *events[4])
    (made,) = await answers(exporter, early)
    assert isinstance(made, ModelExported)
    assert made.filename == "model-last.safetensors"


async def test_a_sealed_model_is_exported_by_a_session_of_its_own(exporter: Exporter, place: Place) -> None:
    request, _, blob = place.trained["mlp"]
    about = {
        "session": "00-sealed",
        "sealed_root": ZERO,
        "format": "onnx",
        "quantize": "",
        "checkpoint": "60",
        "checkpoint_blob": blob,
        "request": request,
        "facts": place.dataset.facts.as_json(),
        "dataset": place.dataset.root,
        "step": 60,
    }
    history = session_of(
        [("operator", SessionRequested(kind="export", request=about, keyring=ZERO, asked_by="tests", rules=RULES))]
    )
    made, *_ = await answers(exporter, history)
    assert isinstance(made, ModelExported)
    assert made.filename == "model-step60.onnx"
    assert shown(place, history, made).exists()


async def test_a_session_that_is_no_export_is_left_alone(exporter: Exporter, place: Place) -> None:
    assert await answers(exporter, session_of(place.events("mlp", formats=["onnx"])[:1])) == []


@pytest.mark.parametrize(
    ("asked", "code", "cure"),
    [
        ({"format": "keras"}, "unsupported", "onnx"),
        ({"format": "safetensors", "quantize": "int8"}, "unsupported", "onnx"),
        ({"format": "onnx", "checkpoint": "7"}, "no-checkpoint", "60"),
        ({"format": "onnx", "checkpoint": "finest"}, "no-checkpoint", "60"),
    ],
)
async def test_what_cannot_be_made_is_refused_with_the_cure(
    exporter: Exporter, place: Place, asked: dict[str, str], code: str, cure: str
) -> None:
    events = place.events("mlp")
    history = session_of([*events[:4], ("operator", ExportRequested(asked_by="tests", **asked)), events[4]])
    (refused,) = await answers(exporter, history)
    assert isinstance(refused, ExportRefused)
    assert refused.code == code
    assert cure in refused.cure
    assert not orders(history.state)


async def test_a_checkpoint_whose_bytes_changed_is_refused_by_its_digest(exporter: Exporter, place: Place) -> None:
    events = place.events("mlp", formats=["onnx"])
    damaged = place.blobs.put(b"no checkpoint at all")
    changed = [
        (lane, one.model_copy(update={"blob": damaged}) if isinstance(one, CheckpointWritten) else one)
        for lane, one in events
    ]
    (refused,) = await answers(exporter, session_of(changed))
    assert isinstance(refused, ExportRefused)
    assert refused.code == "not-verified"


async def test_weights_that_are_not_finite_are_refused(exporter: Exporter, place: Place) -> None:
    request, kept, _ = place.trained["linear"]
    tensors = {name: one.clone() for name, one in kept.tensors.items()}
    tensors["model.body.1.bias"][0] = math.nan
    broken = checkpoint.seal(tensors, 60)
    blob = place.blobs.put(checkpoint.pack(broken))
    place.trained["broken"] = (request, broken, blob)
    (refused,) = await answers(exporter, session_of(place.events("broken", formats=["onnx"])))
    assert isinstance(refused, ExportRefused)
    assert refused.code == "not-finite"


async def test_a_file_that_answers_differently_is_not_published(exporter: Exporter, place: Place) -> None:
    """The first job makes the file of one model; the proof is asked for another."""
    history = session_of(place.events("mlp", formats=["onnx"]))
    (order,) = orders(history.state)
    assert isinstance(order, ExportOrder)
    case = Wakeup(history.facts[-1], history.state, history, exporter.ground, history.size)
    await exporter._once(make_file, order, case)
    _, other, _ = place.trained["mlp"]
    tensors = {name: one + 0.001 if one.is_floating_point() else one for name, one in other.tensors.items()}
    blob = place.blobs.put(checkpoint.pack(checkpoint.seal(tensors, 60)))
    changed = order.model_copy(update={"blob": blob, "state_root": None})
    refused = await exporter._once(prove_file, changed, case)
    assert isinstance(refused, ExportRefusal)
    assert refused.code == "parity"
    assert "max_abs" in refused.message
    assert not (place.home.sessions / history.id / "exports").exists()


class Killer(Exporter):
    """Its proofs are ended from outside, so often as it is told."""

    deaths = 0

    async def _once(self, job: Any, order: ExportOrder, case: Wakeup) -> Any:
        if self.deaths and job is prove_file:
            type(self).deaths -= 1
            running = asyncio.create_task(super()._once(job, order, case))
            os.kill(await self._pid(), signal.SIGSEGV)
            return await running
        return await super()._once(job, order, case)

    async def _pid(self) -> int:
        while True:
            for job in self.ground.children.running():
                if job.purpose == "export" and job.pid:
                    return job.pid
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("deaths", "outcome"), [(1, ModelExported), (2, ExportRefused)])
async def test_a_crash_in_a_library_is_tried_once_more_and_then_said(
    place: Place, children: Children, deaths: int, outcome: type[Event]
) -> None:
    Killer.deaths = deaths
    killer = Killer(SimpleNamespace(home=place.home, blobs=place.blobs, children=children))
    said = await answers(killer, session_of(place.events("linear", formats=["safetensors"])))
    assert [type(one) for one in said] == [outcome]
    if isinstance(said[0], ExportRefused):
        assert said[0].code == "child-died"
        assert "export.log" in said[0].cure


async def test_what_libraries_print_goes_to_the_log_of_the_session(
    exporter: Exporter, place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    history = session_of(place.events("linear", formats=["onnx"]))
    await answers(exporter, history)
    assert "torchvision" in (place.home.sessions / history.id / "export.log").read_text()
    assert "torchvision" not in "".join(capfd.readouterr())


FIGURES = {"max_abs": 1e-6, "max_rel": 0.5, "reference_max": 10.0, "sqnr_db": 120.0}


@pytest.mark.parametrize(
    ("form", "quantize", "figures", "passes"),
    [
        ("onnx", "", {}, True),
        ("onnx", "", {"max_abs": 2e-3}, False),
        ("onnx", "", {"sqnr_db": 79.0}, False),
        ("onnx", "", {"sqnr_db": math.nan}, False),
        ("onnx", "", {"max_abs": math.nan}, False),
        ("safetensors", "", {}, False),
        ("safetensors", "", {"max_abs": 0.0}, True),
        ("onnx", "fp16", {"sqnr_db": 51.0, "max_abs": 0.1}, True),
        ("onnx", "fp16", {"sqnr_db": 49.0}, False),
        ("onnx", "int8", {"sqnr_db": 24.0}, False),
        ("onnx", "int8", {"sqnr_db": 24.0, "reference_accuracy": 0.97, "accuracy": 0.965}, True),
        ("onnx", "int8", {"sqnr_db": 34.0, "reference_accuracy": 0.97, "accuracy": 0.95}, False),
    ],
)
async def test_the_gates_judge_size_noise_and_the_task(
    form: str, quantize: str, figures: dict[str, float], passes: bool
) -> None:
    assert (parity.objection(form, quantize, FIGURES | figures, 1000) == "") is passes


async def test_a_difference_is_located_and_nan_is_the_largest_of_all() -> None:
    rows = {"x": np.arange(10, dtype=np.float32).reshape(10, 1)}
    said = parity.compare(lambda c: c["x"], lambda c: np.where(c["x"] == 7, np.nan, c["x"]), rows, 10, (4,))
    assert math.isnan(said.max_abs)
    assert said.worst == "rows 4 to 7 in batches of 4"
    assert said.figures()["max_abs"].hex() == "nan"


async def test_an_answer_of_another_shape_is_no_answer() -> None:
    rows = {"x": np.ones((4, 3), np.float32)}
    said = parity.compare(lambda c: c["x"], lambda c: c["x"][:, :2], rows, 4, (2,))
    assert math.isinf(said.max_abs)
    assert "shape (2, 2), not (2, 3)" in said.worst


async def test_every_format_has_a_class_and_every_class_a_format() -> None:
    classes = {cls for module in (formats, onnx_format) for cls in vars(module).values() if hasattr(cls, "opened")}
    assert classes - {formats.Format} == {type(formats.named(form)) for form in FORMATS}


async def test_an_export_session_that_names_no_checkpoint_is_refused() -> None:
    refused = order_of({"format": "onnx", "dataset": ZERO})
    assert isinstance(refused, ExportRefused)
    assert "checkpoint_blob" in refused.message


EVERYBODY_ELSE = tuple(role for role in BUILT_IN if role != "exporter")


async def test_in_a_whole_crew_the_seal_waits_for_every_file_that_was_asked_for(tmp_path: Path) -> None:
    async with harness.crew(tmp_path) as crew:
        request = harness.small_request(export={"formats": ["onnx", "safetensors"], "quantize": ["int8"]})
        session = await crew.commands.submit(read_request(request).resolved())
        ended = await harness.until_ended(crew, session)
    assert ended.state == "completed"
    assert [(one.format, one.quantize) for _, one in ended.training.exports] == [
        ("onnx", ""),
        ("onnx", "int8"),
        ("safetensors", ""),
    ]
    assert {one.checkpoint_step for _, one in ended.training.exports} == {
        ended.training.best.step if ended.training.best else None
    }
    assert not ended.waived


async def test_an_exporter_that_comes_later_makes_what_is_owed_and_one_that_comes_again_makes_nothing_twice(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()
    async with harness.crew(tmp_path, EVERYBODY_ELSE, bus=bus, waive_after_seconds=60.0) as crew:
        request = harness.small_request(export={"formats": ["safetensors", "onnx"]})
        session = await crew.commands.submit(read_request(request).resolved())
        await harness.until_said(crew, session, "training.completed")
    async with harness.crew(tmp_path, bus=bus, waive_after_seconds=60.0) as crew:
        await harness.until_said(crew, session, "model.exported")
    async with harness.crew(tmp_path, bus=bus, waive_after_seconds=60.0) as crew:
        ended = await harness.until_ended(crew, session)
    assert [one.format for _, one in ended.training.exports] == ["safetensors", "onnx"]
    assert ended.state == "completed"
