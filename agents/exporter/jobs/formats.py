"""The formats of files: `write` makes one, `opened` asks it. Weights alone, and graphs of torch."""

import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save

from agents.exporter.jobs.parity import Ask
from agents.exporter.jobs.trained import Answering, ExportModel, asking, canonical, input_columns
from contracts.request import Request
from runtime.engine import state
from runtime.engine.checkpoint import judged_weights
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner

_PREFIX = "model."
_ABOUT = "stigmergy.json"


@dataclass(frozen=True)
class FileDetails:
    """What is to be told about a file besides its bytes; `beside` are readable companions by suffix."""

    opset: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)


class Format(Protocol):
    """What a format can do. The same model gives the same bytes, wherever and however often it is written."""

    executable: bool
    """Whether other software runs the file, so that its speed is worth telling."""

    def write(self, trained: ExportModel, quantize: str, path: Path) -> FileDetails:
        """Make the file, or raise `Unexportable`."""
        ...

    def opened(self, path: Path, quantize: str) -> Ask:
        """The file as something to ask; knows nothing but the file."""
        ...


class Safetensors:
    """Weights alone, under the names that `state_dict` has, with the configuration that rebuilds the model."""

    executable = False

    def write(self, trained: ExportModel, quantize: str, path: Path) -> FileDetails:
        """The weights that the checkpoint is judged by, byte for byte; tied tensors are stored once, by one name."""
        judged = judged_weights(trained.request, trained.checkpoint.tensors)
        weights = {name.removeprefix(_PREFIX): tensor for name, tensor in judged.items()}
        tied = {name.removeprefix(_PREFIX): of.removeprefix(_PREFIX) for name, of in trained.checkpoint.aliases.items()}
        config = trained.about() | {
            "request": trained.request.resolved(),
            "facts": trained.facts.as_json(),
            "tied": {name: of for name, of in tied.items() if of in weights},
        }
        # One key only: the order in which the library writes several is a matter of chance.
        path.write_bytes(save(weights, {"stigmergy": canonical(config)}))
        readable = json.dumps(config, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"
        return FileDetails(details={"tensors": len(weights)}, beside={"config.json": readable})

    def opened(self, path: Path, quantize: str) -> Ask:
        """A function from columns to the answers of the model, rebuilt from the file alone."""
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        config = json.loads(header["__metadata__"]["stigmergy"])
        request, facts = Request.model_validate(config["request"]), Facts.from_json(config["facts"])
        learner = Learner(request, facts)
        model = learner.build()
        loaded = {_PREFIX + name: tensor.clone() for name, tensor in load_file(path).items()}
        state.restore(state.weights(model), loaded)
        inputs = input_columns(learner.workload, facts)
        return asking(Answering(model, learner.workload, inputs).eval(), inputs)


class TorchProgram:
    """The archive of torch.export: a graph that torch loads without the code of the model."""

    executable = False

    def write(self, trained: ExportModel, quantize: str, path: Path) -> FileDetails:
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

    def opened(self, path: Path, quantize: str) -> Ask:
        """A function from columns to the answers of the exported program, loaded from the file alone."""
        extra = {_ABOUT: ""}
        model = torch.export.load(path, extra_files=extra).module()
        return asking(model, json.loads(extra[_ABOUT])["inputs"])


class TorchScript:
    """TorchScript, which torch itself calls deprecated: kept for those who still load it from C++."""

    executable = False

    def write(self, trained: ExportModel, quantize: str, path: Path) -> FileDetails:
        """Trace one pass of the model and write the trace."""
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                trained.answering, trained.example(), check_trace=False
            )
            about = canonical(trained.about() | {"inputs": trained.inputs})
            torch.jit.save(traced, path, _extra_files={_ABOUT: about})
        # Once more without the tables that say which line of which file an operation comes from.
        with zipfile.ZipFile(path) as archive:
            entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in entries:
                if not name.endswith(".debug_pkl"):
                    archive.writestr(zipfile.ZipInfo(name), content)
        return FileDetails(details={"deprecated": "torch removes TorchScript in time; prefer onnx or pt2"})

    def opened(self, path: Path, quantize: str) -> Ask:
        """A function from columns to the answers of the trace, loaded from the file alone."""
        extra = {_ABOUT: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            model = torch.jit.load(path, _extra_files=extra)  # type: ignore[no-untyped-call]
        return asking(model, json.loads(extra[_ABOUT])["inputs"])


def plain_of(path: Path) -> Path:
    """The path of the full-precision file that a quantised one is made from."""
    return path.with_name(f"{path.name}.plain")


def named(form: str) -> Format:
    """The format of that name, one of `plan.FORMATS`, with the libraries it needs."""
    if form == "onnx":
        # Late: only this format needs them, and a job without them says which module is missing.
        from agents.exporter.jobs.onnx_format import Onnx

        return Onnx()
    formats: Mapping[str, Format] = {"safetensors": Safetensors(), "pt2": TorchProgram(), "torchscript": TorchScript()}
    return formats[form]
