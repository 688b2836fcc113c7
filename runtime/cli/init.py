"""`swarm init`, `workload`: a request to start from, and models and data of the user's own, pinned by their digest."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import InvalidInput, NotFound
from runtime.api.children import open_children
from runtime.api.evidence import output_path
from runtime.cli.call import Call, Json, command, remember, shared
from runtime.cli.output import code_lines, table

if TYPE_CHECKING:
    from runtime.home.workloads import WorkloadEntry


MODES = ("baseline", "optimization", "production")

REQUEST = """\
# A training request. `swarm check {file}` judges it, `swarm run {file}` trains it.
# Every section but data and model may be left out: `swarm config show {file}` shows all defaults, and
# `swarm config schema` every option.
name: {name}
mode: {mode}  # {modes}

# source: {sources}
{data}

# architecture: {architectures}
{model}

# type: {optimizers}
optimizer: {{type: adamw, learning_rate: 1e-3, weight_decay: 0.01}}

# type: {schedules}
schedule: {{type: cosine, warmup_steps: 50}}

training: {{batch_size: 64, grad_clip: 1.0}}  # epochs: 20 wins over the mode
early_stopping: {{enabled: true, patience: 10, metric: val_loss}}
reproducibility: {{seed: 42}}

# formats: {formats}; quantize: {quantizations}
export: {{formats: [onnx]}}
"""

OWN_DATA = "data: {source: digits, split: {train: 0.8, val: 0.1, test: 0.1}}"
OWN_MODEL = "model: {architecture: mlp, hidden: [256, 256], dropout: 0.1}"
IMAGE_MODEL = "model: {architecture: cnn, channels: [32, 64]}"

TABLES = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""Which source reads a file of that name."""

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
@click.option(
    "--data", "rows", metavar="PATH", help="Your rows: a table in a file, or a folder with one of images per class."
)
@click.option("--target", metavar="COLUMN", help="The column of the table that is to be predicted.")
@click.option("--mode", type=click.Choice(MODES), default="baseline", show_default=True)
@click.option("-o", "--output", metavar="FILE", default="request.yaml", show_default=True, help="Where to write.")
@click.option("--force", is_flag=True, help="Overwrite the request file if there is one.")
def init(
    call: Call, *, source: str | None, rows: str | None, target: str | None, mode: str, output: str, force: bool
) -> None:
    """Write a request to start from, and with --from also a workload, registered under its file's name."""
    if Path(output).suffix.lower() not in (".yaml", ".yml"):
        raise InvalidInput(f"{output} is not a .yaml file.", cure="Name it so: -o request.yaml", path="--output")
    path = output_path(output, force=force)
    data, model, name = OWN_DATA, OWN_MODEL, "my-training"
    if target is not None and rows is None:
        raise InvalidInput("a target is a column of your rows.", cure="Name them too: --data PATH", path="--target")
    if rows is not None:
        data, model = _rows_sections(Path(rows), target, path.parent)
    written: list[str] = []
    made: Json | None = None
    if source is not None:
        made, written = _workload(call, Path(source).absolute())
        name = made["name"]
        data, model = _sections(made, None if rows is None else data)
    path.write_text(_request_text(output, name, mode, data, model), encoding="utf-8")
    lines = [f"Wrote {file}" for file in [str(path), *written]]
    lines += [f"Registered workload {made['name']!r} ({made['class']}, digest {made['digest'][:16]})"] if made else []
    call.result({"path": str(path), "workload": made}, "\n".join([*lines, f"Next: swarm check {output}"]))


def _request_text(file: str, name: str, mode: str, data: str, model: str) -> str:
    """The text of a request, which lists in its comments what there is to choose from."""
    from contracts.request import MODES as DEFAULTS
    from contracts.request.data import Data
    from contracts.request.model import Model
    from contracts.request.optimizer import Optimizer, Schedule
    from contracts.request.reading import tags_of
    from contracts.request.training import FORMATS, QUANTIZATIONS

    unions = {"sources": Data, "architectures": Model, "optimizers": Optimizer, "schedules": Schedule}
    choices = {what: ", ".join(tags_of(union)) for what, union in unions.items()}
    choices |= {"formats": ", ".join(FORMATS), "quantizations": ", ".join(QUANTIZATIONS)}
    modes = ", ".join(f"{name}: {DEFAULTS[name]['training']['epochs']} epochs" for name in MODES) + " and the test set"
    return REQUEST.format(file=file, name=name, mode=mode, modes=modes, data=data, model=model, **choices)


def _rows_sections(path: Path, target: str | None, folder: Path) -> tuple[str, str]:
    """The sections data and model for the user's own rows, with paths relative to the request's folder."""
    if not path.exists():
        raise NotFound(f"there is no file or folder {str(path)!r}.", cure="Name one that is there.", path="--data")
    named = json.dumps(os.path.relpath(path.absolute(), folder), ensure_ascii=False)
    if path.is_dir():
        if target is not None:
            raise InvalidInput("images have no column.", cure="Leave --target out.", path="--target")
        return f"data: {{source: image_folder, path: {named}, height: 32, width: 32}}", IMAGE_MODEL
    source = TABLES.get(path.suffix.lower())
    if source is None:
        cure = f"Known: {', '.join(TABLES)}, or a folder of images. Other sources: swarm config schema"
        raise InvalidInput(f"{path.name!r} has a suffix that says nothing.", cure=cure, path="--data")
    if target is None:
        raise InvalidInput(
            f"{path.name!r} is a table.", cure="Say what is to be predicted: --target COLUMN", path="--target"
        )
    return f"data: {{source: {source}, path: {named}, target: {json.dumps(target, ensure_ascii=False)}}}", OWN_MODEL


def _workload(call: Call, path: Path) -> tuple[Json, list[str]]:
    """The workload in the file, registered in the home; the file is written first when it is missing."""
    skeleton = not path.exists()
    if skeleton:
        title = "".join(part.capitalize() for part in path.stem.replace("-", "_").split("_")) or "Mine"
        path.write_text(WORKLOAD.format(file=path.name, name=path.stem, title=title), encoding="utf-8")
    return add_workload(call, str(path)), [str(path)] if skeleton else []


def _sections(made: Json, given: str | None) -> tuple[str, str]:
    """The sections of a request that use the workload: its data only if it has some and no other is given."""
    own = f"{{source: workload, workload: {made['name']}}}"
    has_data = "def data(" in Path(made["path"]).read_text(encoding="utf-8")
    data = given or (f"data: {own}" if has_data else OWN_DATA)
    return data, f"model: {{architecture: workload, workload: {made['name']}, options: {{}}}}"


@click.group("workload")
@shared
def workload(**options: Any) -> None:
    """Register workloads, which requests then name; a request never carries code."""
    remember(options)


@command("add", short_help="Pin a file as it is now, under a name.")
@click.argument("file", metavar="FILE[:CLASS]")
@click.option("--name", default="", help="What requests call it (default: the file's name).")
def workload_add(call: Call, *, file: str, name: str) -> None:
    """Pin FILE as it is now. A process of its own imports it once, to show what would go wrong later.

    Its text is also read for bugs that raise no error; `swarm check` looks for more of them, with real rows.
    """
    from runtime.home.silent_bugs import CodeFinding

    made = add_workload(call, file, name)
    code = code_lines([CodeFinding(**one) for one in made["code"]])
    was = f" (was {made['was'][:16]})" if made["was"] not in (None, made["digest"]) else ""
    what = f"{made['class']} in {made['path']}, digest {made['digest'][:16]}{was}"
    use = f"Use it: model: {{architecture: workload, workload: {made['name']}}}"
    call.result(made, f"Workload {made['name']!r} is {what}.\n{use}{code}")


def add_workload(call: Call, file: str, name: str = "") -> Json:
    """Register a workload; what it is now, under `was` the digest that its name had, and bugs that its text shows."""
    from runtime.home.code_review import review_source
    from runtime.home.workload_file import read_source
    from runtime.home.workloads import Workloads

    registry = Workloads(call.home.root)
    before = {entry.name: entry.digest for entry in registry.list()}

    async def add() -> WorkloadEntry:
        async with open_children() as children:
            return await registry.add(file, children, name=name)

    made = call.wait(add())
    code = [asdict(one) for one in review_source(read_source(Path(made.path)), made.path)]
    return _describe_workload(made) | {"was": before.get(made.name), "code": code}


@command("list")
def workload_list(call: Call) -> None:
    """List the workloads of this home and of installed packages.

    A package offers a workload by an entry point of the group `stigmergy.workloads`: mine = "my_package.models:Mine".
    """
    from runtime.home.workloads import Workloads

    entries = Workloads(call.home.root).list()
    rows = [[entry.name, entry.class_name, entry.digest[:16], entry.module or entry.path] for entry in entries]
    head = ("workload", "class", "digest", "from")
    text = table(head, rows) if rows else "None yet. Add one: swarm workload add FILE"
    call.result({"workloads": [_describe_workload(entry) for entry in entries]}, text)


@command("remove")
@click.argument("name", metavar="NAME")
def workload_remove(call: Call, *, name: str) -> None:
    """Forget a workload that was added; its file stays."""
    from runtime.home.workloads import Workloads

    Workloads(call.home.root).remove(name)
    call.result({"removed": name}, f"Workload {name!r} is forgotten.")


def _describe_workload(entry: WorkloadEntry) -> Json:
    return {"name": entry.name, "class": entry.class_name, "path": entry.path, "digest": entry.digest}


for _command in (workload_add, workload_list, workload_remove):
    workload.add_command(_command)
