"""A session that begins with given weights: they are read once, kept, and what follows from them can be recomputed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bus.blobs import DirectoryBlobs, digest_of
from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import TrainingClaimed, TrainingCompleted, TrainingFailed
from runtime import audit
from runtime.api.handle import load
from runtime.audit import recomputation
from runtime.audit.log_check import make_bundle
from runtime.bundle import verify_bundle
from runtime.bundle.reader import unpack_bundle
from runtime.engine.checkpoint import unpack
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.jobs.children import Children
from runtime.log import retention
from runtime.log.archive import Archive
from runtime.replay import initial_state
from runtime.replay.audit_plan import AuditOptions
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.verdict import ReplayVerdict
from tests.harness import crew, kill_child, small_request, until_ended, until_said

ROLES = ("data_manager", "trainer", "checkpoint_keeper", "validator", "diagnostician", "exporter", "ledger")
FROZEN = "body.1.*"


@dataclass
class Taught:
    """A home in which one session was taught and others began with what it had learnt."""

    home: Home
    taught: SessionState
    begun: SessionState
    """From the taught one's best checkpoint; its first layer stays."""
    orphan: SessionState
    """From a file that was gone after the claim, killed before it had anything else to begin from."""
    file: bytes

    @property
    def blobs(self) -> DirectoryBlobs:
        return DirectoryBlobs(self.home.blobs)

    def claims(self, session: SessionState) -> list[TrainingClaimed]:
        facts = Archive(self.home).read(session.id).history.facts
        return [fact.event for fact in facts if isinstance(fact.event, TrainingClaimed)]

    def weights(self, session: SessionState, which: str | int) -> dict[str, torch.Tensor]:
        """The model's own tensors in a checkpoint, by its own names."""
        kept = session.training.checkpoint(which)
        assert kept is not None
        tensors = unpack(self.blobs.get(kept.written.blob)).tensors
        return {name.removeprefix("model."): one for name, one in tensors.items() if name.startswith("model.")}

    def material(self, session: SessionState) -> AuditSubject:
        return AuditSubject(Archive(self.home).read(session.id), self.blobs, self.home.root / "work", self.home.root)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return asyncio.run(_taught(tmp_path_factory.mktemp("place")))


async def _taught(place: Path) -> Taught:
    async with crew(place / "home", ROLES, data_roots=(str(place),)) as made:
        taught = await trained(made, "taught")
        best = taught.training.checkpoint("best")
        assert best is not None
        # Nothing in a home may be named, so a checkpoint is taken out of it first.
        mine = place / "best.safetensors"
        mine.write_bytes(made.ground.blobs.get(best.written.blob))
        model = small_request()["model"] | {"init": str(mine), "freeze": [FROZEN]}
        begun = await trained(made, "begun", model=model, export={"formats": ["safetensors"]})
        file = place / "weights.safetensors"
        tensors = unpack(mine.read_bytes()).tensors
        save_file({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, file)
        data = file.read_bytes()
        orphan = await trained(made, "orphan", during=lambda: _orphaned(made, file), model=_named(file))
        return Taught(Home(place / "home"), taught, begun, orphan, data)


def _named(file: Path) -> dict[str, Any]:
    return small_request()["model"] | {"init": str(file)}


async def trained(
    made: SwarmNode, name: str, *, during: Callable[[], Awaitable[None]] | None = None, **changes: Any
) -> SessionState:
    """A session carried to its end; `during` is called once it is claimed."""
    session = await made.commands.submit(read_request(small_request(name=name, **changes)).resolved())
    if during is not None:
        await until_said(made, session, "training.claimed")
        await during()
    state = await until_ended(made, session)
    assert isinstance(state.outcome, TrainingCompleted), state.outcome
    return state


async def _orphaned(made: SwarmNode, file: Path) -> None:
    """The file goes, and the child dies before it has written anything."""
    file.unlink()
    await kill_child(made, "train")


def test_it_begins_with_the_very_tensors_of_a_checkpoint_of_ours(home: Taught) -> None:
    best, first = home.weights(home.taught, "best"), home.weights(home.begun, 0)
    assert best.keys() == first.keys()
    assert all(torch.equal(best[name], first[name]) for name in best)


def test_frozen_weights_are_still_those_of_the_file_when_the_rest_has_learnt(home: Taught) -> None:
    first, last = home.weights(home.begun, 0), home.weights(home.begun, "last")
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved
    assert not [name for name in moved if name.startswith("body.1.")]


def test_the_claim_names_the_bytes_and_they_are_held_for_the_session(home: Taught) -> None:
    best = home.taught.training.checkpoint("best")
    assert best is not None
    assert {one.initial for one in home.claims(home.begun)} == {best.written.blob}
    assert {home.taught.id, home.begun.id} <= set(retention.holders(home.blobs.root, best.written.blob))


def test_a_file_that_is_gone_after_the_claim_is_not_missed(home: Taught) -> None:
    assert {one.initial for one in home.claims(home.orphan)} == {digest_of(home.file)}
    assert home.blobs.get(digest_of(home.file)) == home.file
    first = home.weights(home.orphan, 0)
    assert all(torch.equal(first[name], one) for name, one in home.weights(home.taught, "best").items())


def test_it_can_be_loaded_and_exported(home: Taught) -> None:
    model = load(home.begun.id, "best", home=home.home.root)
    best = home.weights(home.begun, "best")
    assert all(torch.equal(one, best[name]) for name, one in model.state_dict().items())
    assert [made.format for _, made in home.begun.training.exports] == ["safetensors"]
    assert {kept.validated.control for kept in home.begun.training.checkpoints if kept.validated} == {"reproduced"}


async def test_it_passes_a_full_audit_in_its_home(home: Taught) -> None:
    found = await audited(home.material(home.begun), audit.check_log(Archive(home.home), home.begun.id, home.blobs))
    assert found.verdict == "pass", found.as_json()
    assert found.spans_checked == found.spans_total


async def test_it_passes_a_full_audit_as_a_bundle_with_its_checkpoints_and_rows(home: Taught, tmp_path: Path) -> None:
    wanted = ("checkpoints", "dataset")
    archive = Archive(home.home)
    path = make_bundle(archive, home.orphan.id, home.blobs, tmp_path / "b.zip", wanted=wanted).path
    assert verify_bundle.findings(path, archive.root)["divergence"] is None
    material = unpack_bundle(path, archive.root, tmp_path / "opened")
    log = audit.check_bundle(path, root=archive.root)
    found = await audited(material, log)
    assert found.verdict == "pass", found.as_json()
    material.blobs.remove(digest_of(home.file))
    lacking = await audited(material, log)
    assert lacking.verdict == "not-comparable"
    assert "weights to begin with" in lacking.differing[0]


async def audited(material: AuditSubject, log: Any) -> ReplayVerdict:
    children = Children()
    try:
        return await recomputation.recompute(log, material, AuditOptions("full", workers=2), children)
    finally:
        await children.close()


async def test_what_is_no_such_file_lies_elsewhere_or_does_not_fit_is_refused_with_the_cure(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.pt").read_bytes())
    save_file({"head": torch.zeros(1)}, tmp_path / "other.safetensors")
    said = {
        tmp_path / "w.pt": ("pickle", initial_state.INSTEAD),
        tmp_path / "w.safetensors": ("no safetensors file", initial_state.INSTEAD),
        tmp_path / "nowhere.safetensors": ("No such file", "Correct the path."),
        tmp_path / "other.safetensors": ("'head' is not in the model", "model.fresh"),
        Path(__file__): ("outside the folders", f"--data-root {Path(__file__).parent}"),
    }
    roles = ("data_manager", "trainer", "ledger", "diagnostician")
    async with crew(tmp_path / "home", roles, data_roots=(str(tmp_path),)) as made:
        for file, (message, cure) in said.items():
            request = read_request(small_request(model=_named(file))).resolved()
            state = await until_ended(made, await made.commands.submit(request))
            assert isinstance(state.outcome, TrainingFailed), state.outcome
            assert message in state.outcome.message
            assert cure in state.outcome.cure
            assert not state.training.checkpoints


def test_a_file_of_weights_that_is_larger_than_memory_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "holes.safetensors").open("wb") as file:
        file.truncate(1 << 43)
    (tmp_path / "blobs").mkdir()
    named = initial_state.NamedWeights(
        path=str(tmp_path / "holes.safetensors"), roots=[tmp_path], blobs=tmp_path / "blobs", session="00-abc"
    )
    with pytest.raises(InvalidRequest, match=r"would take 8192 GiB of disk, and .* GiB are free") as caught:
        initial_state.keep_weights.function(named)
    assert caught.value.problems[0].path == "model.init"


async def test_what_memory_cannot_hold_fails_with_a_sentence_before_it_is_claimed(tmp_path: Path) -> None:
    async with crew(tmp_path / "home", ("data_manager", "trainer", "checkpoint_keeper", "ledger")) as made:
        model = {"architecture": "mlp", "hidden": [65536] * 8}
        session = await made.commands.submit(read_request(small_request(model=model)).resolved())
        state = await until_ended(made, session)
    assert isinstance(state.outcome, TrainingFailed)
    assert state.outcome.code == "out-of-memory"
    assert "GiB are free" in state.outcome.message
    assert state.training.claim is None
