"""The archive of torch.export: a graph that torch loads without the code of the model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from agents.exporter.jobs.formats import Answer, FileDetails
from agents.exporter.jobs.trained import ExportModel, asking, canonical

executable = False

_ABOUT = "stigmergy.json"


def write(trained: ExportModel, quantize: str, path: Path) -> FileDetails:
    """The graph with a free batch dimension; no source lines, no paths and no rows of the data stay in it."""
    batch = torch.export.Dim("batch")
    shapes = (tuple({0: batch} for _ in trained.inputs),)
    program = torch.export.export(trained.answering, trained.example(), dynamic_shapes=shapes)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for told in ("stack_trace", "source_fn_stack"):
                    node.meta.pop(told, None)
    program.example_inputs = None
    torch.export.save(program, path, extra_files={_ABOUT: canonical(trained.about() | {"inputs": trained.inputs})})
    return FileDetails(details={"torch": torch.__version__, "nodes": len(program.graph.nodes)})


def opened(path: Path, quantize: str) -> Answer:
    """A function from columns to the answers of the exported program, loaded from the file alone."""
    extra = {_ABOUT: ""}
    model = torch.export.load(path, extra_files=extra).module()
    inputs = json.loads(extra[_ABOUT])["inputs"]

    return asking(model, inputs)
