"""Weights alone, under the names that `state_dict` has, with the configuration that rebuilds the model around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from agents.exporter.jobs.formats import Answer, FileDetails
from agents.exporter.jobs.trained import Answering, ExportModel, asking, canonical, input_columns
from contracts.request import Request
from runtime.engine import state
from runtime.engine.checkpoint import judged_weights
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner

executable = False

_PREFIX = "model."


def write(trained: ExportModel, quantize: str, path: Path) -> FileDetails:
    """The weights that the checkpoint is judged by, byte for byte; tied tensors are stored once, their names listed."""
    judged = judged_weights(trained.request, trained.checkpoint.tensors)
    weights = {name.removeprefix(_PREFIX): one for name, one in judged.items()}
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


def opened(path: Path, quantize: str) -> Answer:
    """A function from columns to the answers of the model, rebuilt from the file alone."""
    config = _config(path)
    request, facts = Request.model_validate(config["request"]), Facts.from_json(config["facts"])
    learner = Learner(request, facts)
    model = learner.build()
    loaded: dict[str, Tensor] = {_PREFIX + name: one.clone() for name, one in load_file(path).items()}
    state.restore(state.weights(model), loaded)
    inputs = input_columns(learner.workload, facts)
    answering = Answering(model, learner.workload, inputs).eval()

    return asking(answering, inputs)


def _config(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    config: dict[str, Any] = json.loads(header["__metadata__"]["stigmergy"])
    return config
