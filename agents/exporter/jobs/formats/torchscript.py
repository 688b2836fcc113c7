"""TorchScript, which torch itself calls deprecated: kept for those who still load it from C++."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import torch

from agents.exporter.jobs.formats import Answer, FileDetails
from agents.exporter.jobs.trained import ExportModel, asking, canonical

executable = False

_ABOUT = "stigmergy.json"


def write(trained: ExportModel, quantize: str, path: Path) -> FileDetails:
    """Trace one pass of the model and write the trace."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            trained.answering, trained.example(), check_trace=False
        )
        about = canonical(trained.about() | {"inputs": trained.inputs})
        torch.jit.save(traced, path, _extra_files={_ABOUT: about})
    _without_source_lines(path)
    return FileDetails(details={"deprecated": "torch removes TorchScript in time; prefer onnx or pt2"})


def opened(path: Path, quantize: str) -> Answer:
    """A function from columns to the answers of the trace, loaded from the file alone."""
    extra = {_ABOUT: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.load(path, _extra_files=extra)  # type: ignore[no-untyped-call]
    inputs = json.loads(extra[_ABOUT])["inputs"]

    return asking(model, inputs)


def _without_source_lines(path: Path) -> None:
    """Write the archive again without the tables that say which line of which file an operation comes from."""
    with zipfile.ZipFile(path) as archive:
        kept = [
            (one.filename, archive.read(one)) for one in archive.infolist() if not one.filename.endswith(".debug_pkl")
        ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in kept:
            archive.writestr(zipfile.ZipInfo(name), content)
