"""A name out of a log, a manifest or a bundle never becomes a path: what an audit writes, it writes where it works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bus.blobs import DirectoryBlobs
from contracts.errors import NotVerified
from contracts.exporter import ExportOrder, ModelExported
from contracts.findings import RecordedExport
from runtime.audit import exports
from runtime.engine.dataset import Manifest, canonical, plain_name
from runtime.node import roster
from runtime.node.capabilities import MAKE_EXPORT, ExportTask, MadeFile

HOSTILE = ("../x", "/tmp/x", "a/b", "..", ".", "", "a\0b", "../../site-packages/x.pth")


class Children:
    """Runs the exporter's job, seen from outside: it writes under the name and in the folder that it is given."""

    async def run(self, job: object, task: ExportTask, **_: Any) -> MadeFile:
        assert job is roster.job_for(MAKE_EXPORT)
        (task.work / task.filename).write_bytes(b"made again")
        return MadeFile(None)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name])
async def test_a_file_is_made_again_under_a_name_of_ours(tmp_path: Path, name: str) -> None:
    work = tmp_path / "deep" / "down" / "work"
    work.mkdir(parents=True)
    about: Any = dict(quantize="", wanted="best", step=1, blob="b", state_root=None, dataset="d", request={})
    order = ExportOrder(format="onnx", **about)
    made = RecordedExport(export="e", place=1, seq=1, filename=name, blob="0" * 64, beside={}, sources={}, order=order)
    blobs = DirectoryBlobs(tmp_path)
    remade = await exports.remake(made, blobs, [], Children(), work)  # type: ignore[arg-type]
    assert (remade.missing, remade.differing) == ("", "")
    assert "made again has digest" in remade.divergence
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [work / exports.MADE]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_names_files_of_its_own_folder_only(name: str) -> None:
    with pytest.raises(NotVerified):
        plain_name(name)
    facts = {"task": "regression", "rows": {"train": 1}, "columns": {}, "labels": [], "features": [], "mean": []}
    stored = {"dtype": "<f4", "shape": [1, 1], "file": name, "pieces": []}
    raw = {"facts": {**facts, "scale": []}, "splits": {"train": {"x": stored}}, "root": "0" * 64}
    with pytest.raises(NotVerified, match="no name of a file"):
        Manifest.from_json(json.loads(canonical(raw)))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_path_is_shown_of_a_model_whose_name_leads_elsewhere(name: str) -> None:
    fields = {"format": "onnx", "quantize": "", "checkpoint": "best", "checkpoint_step": 1, "opset": None}
    digests = {"checkpoint_blob": "0" * 64, "blob": "0" * 64, "bytes": 1, "rows_compared": 1, "details": {}}
    made = ModelExported(**fields, **digests, filename=name, parity={})
    assert made.plain_filename == ""
    assert made.model_copy(update={"filename": "model-step3.int8.onnx"}).plain_filename == "model-step3.int8.onnx"
