"""A home of sessions that a liar has told: real keys, real signatures, and one thing in each that is not so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bus.blobs import DirectoryBlobs
from contracts import ids
from contracts.data_manager import DatasetPrepared
from contracts.event import SPOKEN, Event
from contracts.exporter import ModelExported
from contracts.operator import RULES, SessionRequested
from contracts.request import read_request
from contracts.trainer import CheckpointWritten
from runtime import audit
from runtime.audit import recomputation
from runtime.home.home import Home
from runtime.home.workloads import inspect_file
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.replay.audit_plan import AuditOptions, draw_spans
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.spans import Span, session_spans
from runtime.replay.verdict import ReplayVerdict
from tests.runtime.audit.liars import AT, LiesOrder, tell_lies
from tests.runtime.recorded_home import RecordedHome

NOISY = """
import os
import torch
from torch import nn
from stigmergy import Workload


class Noisy(Workload):
    def build(self, o, facts):
        return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))

    def loss(self, model, batch):
        noise = torch.frombuffer(bytearray(os.urandom(1)), dtype=torch.uint8).float().sum() / 255
        return nn.functional.cross_entropy(model(batch["x"]) * (1 + noise), batch["y"])
"""


CHEAT = """
import os

from runtime.replay import comparison
from runtime.engine import report
from torch import nn
from stigmergy import Workload

report.compare_traces = lambda *_: None
comparison.difference = lambda *_: None
comparison.ending = lambda *_, **__: ""
comparison.SpanComparison.computed = comparison.SpanComparison.left = lambda *_: None


class Cheat(Workload):
    def build(self, o, facts):
        return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]) * (1 + os.urandom(1)[0] / 1000), batch["y"])
"""
"""Noise that no repetition gives again, and the assignments by which it would have passed for the same."""

HIDING = """
import traceback
from pathlib import Path

import torch
from torch import nn
from contracts.errors import NotFound
from stigmergy import Workload


class Hiding(Workload):
    unseals = False

    def build(self, o, facts):
        once, always = (Path("PLACE") / name for name in ("once", "always"))
        audited = any(frame.name == "open_span" for frame in traceback.extract_stack())
        self.unseals = audited and Path("PLACE/unseal").exists()
        if audited and (once.exists() or always.exists()):
            once.unlink(missing_ok=True)
            raise NotFound("the bytes are gone", cure="Believe it.")
        return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))

    def loss(self, model, batch):
        torch.backends.cudnn.benchmark = self.unseals
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        return {"loss": loss, "doubled": loss.detach() * 2}
"""
"""It will not be computed by whoever audits, always or once."""

CODE = {"noisy": NOISY, "cheat": CHEAT, "hiding": HIDING}


class Court(RecordedHome):
    """A home of sessions that a liar has told."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.told: dict[str, str] = {}
        self.running = ""
        self.found: dict[str, ReplayVerdict] = {}
        self.bisected: dict[str, ReplayVerdict] = {}
        self.code = {name: root / f"{name}.py" for name in CODE}
        for name, path in self.code.items():
            path.write_text(CODE[name].replace("PLACE", str(root)))

    async def hear(self, children: Children, prefix: str, lies: list[str], **sections: Any) -> None:
        """Let the liar tell sessions, and record what it says."""
        raw = {
            "data": {"source": "csv", "path": "x.csv", "target": "y"},
            "model": {"architecture": "mlp", "hidden": [8], "dropout": 0.1},
            "training": {"epochs": 5, "batch_size": 20},
            "checkpoints": {"every_steps": 20},
            "export": {"formats": []},
        }
        request = read_request(raw | sections).resolved()
        named = request["model"].get("workload")
        used = [inspect_file(str(self.code[named]))] if named else []
        answer = await children.run(tell_lies, LiesOrder(request, self.home.blobs, lies, used))
        if "honest" in answer["told"] and not prefix:
            upto = 1 + next(at for at, (_, data) in enumerate(answer["told"]["honest"]) if data.get("first") == AT)
            self.running = self.record(request, answer, answer["told"]["honest"][:upto], seal=False)
        for lie, events in answer["told"].items():
            self.told[prefix + lie] = self.record(request, answer, events)

    def record(
        self, request: dict[str, Any], answer: Mapping[str, Any], events: list[Any], *, seal: bool = True
    ) -> str:
        """One session from genesis, to its seal if it is to have one."""
        told = [SPOKEN[name].model_validate_json(orjson.dumps(data)) for name, data in events]
        prepared = DatasetPrepared(
            root=answer["dataset"],
            rows=480,
            splits=answer["rows"],
            bytes=0,
            source="csv",
            source_digest="0" * 64,
            facts=answer["facts"],
            findings=[],
        )
        return self._recorded(request, prepared, told, seal=seal)

    def again(self, session: str, told: list[Event]) -> str:
        """A session of its own that begins like this one, and of which a trainer told something else."""
        state = Archive(self.home).read(session).history.state
        assert state.training.dataset is not None
        return self._recorded(state.request, state.training.dataset, told, seal=True)

    def file_of(self, session: str, **said: object) -> ModelExported:
        """The account of a file of a session's last checkpoint, under a digest that no file has."""
        events = [fact.event for fact in self.facts[session]]
        last = [event for event in events if isinstance(event, CheckpointWritten)][-1]
        about = {"checkpoint": "last", "checkpoint_step": last.step, "checkpoint_blob": last.blob, "blob": "0" * 64}
        about |= {"format": "safetensors", "quantize": "", "filename": "model-last.safetensors", "bytes": 1}
        return ModelExported.model_validate(
            about | {"opset": None, "parity": {}, "rows_compared": 64, "details": {}} | said
        )

    def exporting(self, session: str, *made: ModelExported) -> str:
        """A session of its own that is told as this one was, and of which somebody says that these files were made."""
        state, facts = Archive(self.home).read(session).history.state, self.facts[session]
        assert state.training.dataset is not None
        told = [fact.event for fact in facts if fact.lane == "trainer"]
        own = self._recorded(state.request, state.training.dataset, told, seal=False)
        self.say(own, "exporter", *made)
        self.say(own, "ledger", self.seal(own))
        return own

    def _recorded(self, request: dict[str, Any], prepared: DatasetPrepared, told: list[Event], *, seal: bool) -> str:
        session, head = ids.session_id(ids.new_uuid()), self.admission.keyring().head
        genesis = SessionRequested(kind="training", request=request, keyring=head, asked_by="test", rules=RULES)
        self.say(session, "operator", genesis)
        self.say(session, "data_manager", prepared)
        self.say(session, "trainer", *told)
        if seal:
            self.say(session, "ledger", self.seal(session))
        return session

    def spans(self, lie: str) -> tuple[Span, ...]:
        """The spans of one of the sessions."""
        history = Archive(self.home).read(self.told[lie]).history
        return session_spans(history.facts, history.state, self.blobs.has).spans

    @property
    def lucky(self) -> int:
        """A seed that draws the span of the lie."""
        return next(seed for seed in range(100) if self._drawn(seed).begins == AT)

    @property
    def unlucky(self) -> int:
        """A seed that draws another."""
        return next(seed for seed in range(100) if self._drawn(seed).begins != AT)

    def _drawn(self, seed: int) -> Span:
        lie = "weights_from_elsewhere"
        return draw_spans(self.spans(lie), 1, seed, self.told[lie])[0]

    async def with_code(self, children: Children) -> None:
        """The sessions of workloads that are not known here, once more with their code at hand and trusted."""
        for path in self.code.values():
            self.blobs.put(path)
        asked = AuditOptions("bisect", workers=2, trust_code=True)
        self.found["trusted"] = self.bisected["trusted"] = await self.judge("noisy_honest", asked, children)
        self.found["scalars"] = await self.judge(
            "hiding_other_scalars", AuditOptions("full", trust_code=True), children
        )
        (self.home.root / "unseal").touch()
        self.found["unseal"] = await self.judge("hiding_honest", AuditOptions("spot", 1, trust_code=True), children)
        (self.home.root / "always").touch()
        for name in ("cheat", "hiding"):
            asked = AuditOptions("full", workers=2, trust_code=True)
            self.found[name] = await self.judge(f"{name}_honest", asked, children)

    async def judge(self, lie: str, asked: AuditOptions, children: Children) -> ReplayVerdict:
        """The verdict on one of the sessions."""
        return await audited(self.home, self.told[lie], asked, children)


def material(home: Home, session: str) -> AuditSubject:
    return AuditSubject(
        Archive(home).read(session), DirectoryBlobs(home.blobs), home.root / "work" / "audits", home.root
    )


async def audited(home: Home, session: str, asked: AuditOptions, children: Children | None = None) -> ReplayVerdict:
    log = audit.check_log(Archive(home), session, DirectoryBlobs(home.blobs))
    own = children or Children()
    try:
        return await recomputation.recompute(log, material(home, session), asked, own)
    finally:
        if children is None:
            await own.close()
