"""What came of making an exported file again is judged by its cause: only what is missing here stays unchecked."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.exporter.agent import claimed_workloads
from bus.blobs import DirectoryBlobs, digest_of
from contracts.audit import AuditState
from contracts.errors import NotVerified
from contracts.exporter import ExportOrder, ExportRepeated, ModelExported
from contracts.findings import AuditedMachine, RecordedExport, SpanPlanned
from contracts.trainer import AuditPlanned, CheckpointWritten, SpanRepeated
from runtime.audit import exports
from runtime.audit.exports import Remade
from runtime.audit.recomputation import conclude
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.node.capabilities import ExportRefusal, MadeFile
from runtime.replay.audit_plan import AuditPlan
from runtime.replay.audit_runner import AuditJobs
from runtime.replay.verdict import ExportFindings, SpanResult, Verdict, replay_verdict
from tests.runtime.audit.conftest import SHORT
from tests.runtime.audit.court import Court, material
from tests.runtime.recorded_home import DIGEST, claimed


@pytest.fixture
def court(short_court: Court) -> Court:
    return short_court


def exported(court: Court, **said: object) -> ModelExported:
    return court.file_of(court.told[SHORT], **said)


async def remade(court: Court, children: Children, folder: Path, *made: ModelExported) -> ExportFindings:
    """What comes of the files of a session of which somebody says that these were made."""
    session = court.exporting(court.told[SHORT], *made)
    of = material(court.home, session)
    assert of.machine is not None
    return await exports.remake_all(of, AuditJobs(children, of.machine, session, folder / "log"), folder)


def recorded(order: ExportOrder | None, **said: Any) -> RecordedExport:
    """What an audit knows of a file before it is made again."""
    about: dict[str, Any] = {"filename": "model.onnx", "blob": "0" * 64, "beside": {}, "sources": {}}
    return RecordedExport(export="e", place=3, seq=3, order=order, **about | said)


UNMADE = {
    "'zip' is no format": {"format": "zip"},
    "'onnx.helper' is no format": {"format": "onnx.helper"},
    "'../int8' is no quantisation": {"quantize": "../int8"},
}
UNWRITTEN = ({"checkpoint_blob": "0" * 64}, {"checkpoint_step": 3})


@pytest.mark.asyncio(loop_scope="module")
async def test_what_comes_of_making_a_file_again_is_judged_by_its_cause(
    court: Court, children: Children, tmp_path: Path
) -> None:
    said = [*UNMADE.values(), *UNWRITTEN, {}, {"details": {"beside": {"config.json": "none"}}}]
    found = await remade(court, children, tmp_path, *(exported(court, **one) for one in said))
    assert found.unchecked == ()
    assert [why in one for why, one in zip(UNMADE, found.differing, strict=True)] == [True] * 3
    messages = [one.message for one in found.divergences]
    assert ["checkpoint that the session never wrote" in one for one in messages] == [True, True, False, False]
    assert all("made again has digest" in one for one in messages[2:])
    digest = messages[2].split("has digest ")[1][:64]
    (tmp_path / "again").mkdir()
    found = await remade(court, children, tmp_path / "again", exported(court, blob=digest))
    assert "config.json made again is not what was recorded" in found.divergences[0].message


@pytest.mark.parametrize(
    ("refusal", "remade"),
    [
        (ExportRefusal("missing-module", "no such module", ""), Remade(differing="no such module")),
        (ExportRefusal("unsupported", "cannot be written", ""), Remade(differing="cannot be written")),
        (ExportRefusal("not-finite", "weights", ""), None),
    ],
)
def test_that_a_module_is_missing_is_believed_only_to_be_seen_here(
    refusal: ExportRefusal, remade: Remade | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = recorded(None)
    found = exports._refused(order, refusal)
    assert found == remade if remade else found.divergence
    monkeypatch.setattr(exports, "MODULES", ("onnx", "surely_no_module"))
    missing = exports._refused(order, refusal).missing
    assert bool(missing) == (refusal.code == "missing-module")


def test_bytes_that_are_gone_meanwhile_are_missing_only_to_be_seen_here(court: Court, tmp_path: Path) -> None:
    of = material(court.home, court.exporting(court.told[SHORT], exported(court)))
    (made,) = exports.orders(of.kept.history)
    order = made.order
    assert order is not None
    assert exports._gone(order, of.blobs) == ""
    assert "blob" in exports._gone(order, DirectoryBlobs(tmp_path))
    rows = order.model_copy(update={"dataset": "0" * 64})
    assert "the rows of dataset" in exports._gone(rows, of.blobs)


def test_a_file_that_was_not_made_is_not_compared(tmp_path: Path) -> None:
    assert exports._against(recorded(None), MadeFile(None), tmp_path, DirectoryBlobs(tmp_path)) == Remade(
        differing="no file"
    )


def test_the_dataset_of_a_file_is_one_that_a_fact_names_whatever_the_request_says(court: Court) -> None:
    for kind in ("training", "export"):
        session = court.requested(kind, dataset="../../elsewhere")
        court.say(session, "trainer", claimed())
        told = exported(court)
        kept: Any = {
            "segment": 1,
            "step": told.checkpoint_step,
            "reason": "final",
            "blob": told.checkpoint_blob,
            "bytes": 1,
        }
        court.say(session, "trainer", CheckpointWritten(**kept, state_root=DIGEST, weights_digest=DIGEST))
        court.say(session, "exporter", told)
        (made,) = exports.orders(Archive(court.home).read(session).history)
        if kind == "export":
            # It trains nothing, so it wrote no checkpoint of which a file could be made.
            assert made.order is None
            continue
        assert made.order is not None
        assert made.order.dataset == claimed().dataset


def test_an_exporter_whose_code_is_not_the_one_that_was_claimed_makes_nothing(tmp_path: Path) -> None:
    home, file = Home(tmp_path / "home"), tmp_path / "own.py"
    home.prepare()
    file.write_text("from stigmergy import Workload\n\n\nclass Own(Workload):\n    pass\n")
    known, own = Workloads(home.root), inspect_file(str(file))
    known._write({"own": own})
    about: Any = dict(format="onnx", quantize="", wanted="best", step=1, blob="b", state_root=None, dataset="d")
    order = ExportOrder(**about, request={"model": {"workload": "own"}})
    assert claimed_workloads(home.root, [recorded(order, sources={"own": own.digest})]) == [own]
    with pytest.raises(NotVerified, match="not the one that was claimed"):
        claimed_workloads(home.root, [recorded(order, sources={"own": "0" * 64})])


LOG = Verdict("s", "pass")
SPAN = SpanPlanned(number=1, segments=1, begins=0, ends=20)
COMPUTED = {1: SpanResult(steps=20, divergence=None)}
DOCKET = AuditPlan("full", 0, (SPAN,), (1,), (), True, 20, 30)
CAUSES = {
    Remade(): "pass",
    Remade(missing="no module"): "pass",
    Remade(differing="an error"): "not-comparable",
    Remade(divergence="another digest"): "fail",
}


@pytest.mark.parametrize("cause", CAUSES)
def test_only_what_is_missing_leaves_the_verdict_as_it_is(cause: Remade) -> None:
    found = replay_verdict(LOG, DOCKET, COMPUTED, exports.export_findings([(recorded(None), cause)]))
    assert found.verdict == CAUSES[cause]
    assert any("model.onnx" in one for one in found.unchecked) == bool(cause.missing or cause.differing)
    said = ExportRepeated(
        export="e", filename="f", divergence=cause.divergence, problem=cause.missing, differing=cause.differing
    )
    assert in_a_swarm(AuditState(exports={"e": said})) == CAUSES[cause]


def test_an_exporter_that_failed_leaves_no_audit_to_pass_and_one_that_is_silent_is_told() -> None:
    assert in_a_swarm(AuditState(exporter_failed=True)) == "not-comparable"
    assert in_a_swarm(AuditState()) == "pass"


def in_a_swarm(audit: AuditState) -> str:
    """The verdict of an audit in a swarm whose only span came out as recorded."""
    planned = AuditPlanned(
        session="s", mode="full", size=30, root="0" * 64, log=LOG.findings(), spans=[SPAN], chosen=[1], cuts=[],
        broken=[], exports=[recorded(None)], machine=AuditedMachine(threads=1), ended=True, reached=20,
    )  # fmt: skip
    same = SpanRepeated(span=1, steps=20, divergence=None, located=None, fingerprint="0" * 64)
    return conclude(replace(audit, planned=planned, repeated={1: same}), planned, seed=0, events=30).verdict


def traced(path: Path, number: bytes, code: bytes = b"return x", compression: int = zipfile.ZIP_STORED) -> Path:
    """A file as the exporter leaves torch's: plain records, among them torch's number."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (("made/code/model.py", code), ("made/.data/serialization_id", number)):
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return path


def test_a_trace_made_where_the_software_lies_elsewhere_is_the_recorded_one(tmp_path: Path) -> None:
    recorded, made = traced(tmp_path / "recorded", b"0086861"), traced(tmp_path / "made", b"0086862")
    assert digest_of(made) != digest_of(recorded)
    assert exports.renumbered(made, recorded, tmp_path / "out") == digest_of(recorded)


@pytest.mark.parametrize(
    "hostile",
    [
        {"number": b"12", "code": b"return y"},
        {"number": b"rows of somebody's data"},
        {"number": b"12", "compression": zipfile.ZIP_DEFLATED},
    ],
)
def test_a_trace_that_differs_in_anything_else_is_not_the_recorded_one(tmp_path: Path, hostile: dict[str, Any]) -> None:
    recorded, made = traced(tmp_path / "recorded", **hostile), traced(tmp_path / "made", b"7")
    assert exports.renumbered(made, recorded, tmp_path / "out") != digest_of(recorded)
    (tmp_path / "no-archive").write_bytes(b"PK")
    assert exports.renumbered(made, tmp_path / "no-archive", tmp_path / "out") == ""
