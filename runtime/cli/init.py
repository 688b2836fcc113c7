"""`swarm init`: a request with its choices in comments, and on demand a workload of one's own, to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contracts.errors import InvalidInput
from runtime.cli.call import Call, command
from runtime.cli.output import place

MODES = ("baseline", "optimization", "production")

REQUEST = """\
# A training request. `swarm check {file}` judges it, `swarm run {file}` trains it.
# Every section but data and model may be left out; `swarm config show {file}` shows all defaults.
name: {name}
mode: {mode}                    # baseline: 20 epochs | optimization: 50 | production: 100 and the test set
{data}
{model}
optimizer: {{type: adamw, learning_rate: 1e-3, weight_decay: 0.01}}   # or sgd, adam
schedule: {{type: cosine, warmup_steps: 50}}                          # or constant, linear, step
training: {{batch_size: 64, grad_clip: 1.0}}                          # epochs: 20 wins over the mode
early_stopping: {{enabled: true, patience: 10, metric: val_loss}}
reproducibility: {{seed: 42}}
export: {{formats: [onnx]}}                                           # also safetensors; quantize: [int8]
"""

OWN_DATA = """\
# Or a table: data: {source: csv, path: table.csv, target: label}
data: {source: digits, split: {train: 0.8, val: 0.1, test: 0.1}}"""
OWN_MODEL = "model: {architecture: mlp, hidden: [256, 256], dropout: 0.1}        # or linear, cnn, workload"

WORKLOAD = '''\
"""A model, its loss and its data of one's own: `swarm workload add {file}` makes it known as {name!r}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import Tensor, nn

from stigmergy import Workload


class {title}(Workload):
    """Two clouds of points, told apart by a small network: replace all three methods by your own."""

    class Options(BaseModel):
        """What a request may set under `model.options` and `data.options`."""

        width: int = 32
        rows: int = 600

    def build(self, o: Options, facts: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(2, o.width), nn.ReLU(), nn.Linear(o.width, facts.outputs))

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def data(self, o: Options) -> Mapping[str, np.ndarray]:
        chance = np.random.default_rng(0)
        y = np.arange(o.rows) % 2
        x = chance.normal(size=(o.rows, 2)) + 2.0 * y[:, None]
        return {{"x": x.astype(np.float32), "y": y}}
'''


@command("init")
@click.option("--from", "source", metavar="FILE.py", help="A workload of your own; a skeleton is written if missing.")
@click.option("--mode", type=click.Choice(MODES), default="baseline", show_default=True)
@click.option("-o", "--output", metavar="FILE", default="request.yaml", show_default=True, help="Where to write.")
@click.option("--force", is_flag=True, help="Overwrite the request file if there is one.")
def init(call: Call, *, source: str | None, mode: str, output: str, force: bool) -> None:
    """Write a request to start from, and with --from also a workload, registered under its file's name."""
    if Path(output).suffix.lower() not in (".yaml", ".yml"):
        raise InvalidInput(f"{output} is not a .yaml file.", cure="Name it so: -o request.yaml", path="--output")
    target = place(output, force=force)
    written: list[str] = []
    data, model, name = OWN_DATA, OWN_MODEL, "my-training"
    made: dict[str, Any] | None = None
    if source is not None:
        made, written = _workload(call, Path(source).absolute())
        name = made["name"]
        data, model = _sections(made)
    text = REQUEST.format(file=output, name=name, mode=mode, data=data, model=model)
    target.write_text(text, encoding="utf-8")
    told = [f"Wrote {path}" for path in [str(target), *written]]
    told += [f"Registered workload {made['name']!r} ({made['class']}, digest {made['digest'][:16]})"] if made else []
    call.result({"path": str(target), "workload": made}, "\n".join([*told, f"Next: swarm check {output}"]))


def _workload(call: Call, path: Path) -> tuple[dict[str, Any], list[str]]:
    """The workload in the file, registered in the home; the file is written first when it is missing."""
    from runtime.cli.workload import added

    skeleton = not path.exists()
    if skeleton:
        title = "".join(part.capitalize() for part in path.stem.replace("-", "_").split("_")) or "Mine"
        path.write_text(WORKLOAD.format(file=path.name, name=path.stem, title=title), encoding="utf-8")
    return added(call, str(path)), [str(path)] if skeleton else []


def _sections(made: dict[str, Any]) -> tuple[str, str]:
    """The sections of a request that use the workload: its data only if it has some."""
    own = f"{{source: workload, workload: {made['name']}}}"
    has_data = "def data(" in Path(made["path"]).read_text(encoding="utf-8")
    data = f"data: {own}" if has_data else OWN_DATA
    return data, f"model: {{architecture: workload, workload: {made['name']}, options: {{}}}}"
