"""A trained model from the home's files: verified, asked, inspected, reported; with no swarm up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
import yaml
from click.testing import CliRunner, Result

import stigmergy
from contracts.errors import NotFound, NotVerified
from contracts.request import read_request
from runtime.cli.main import swarm
from runtime.engine.dataset import Dataset
from runtime.home.home import Home
from runtime.host.swarm_node import Reporter
from runtime.log.archive import Archive
from tests.harness import crew, small_request, until_ended

ROLES = ("data_manager", "trainer", "checkpoint_keeper", "validator", "ledger")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one sealed session, whose report was written while its crew was there."""
    place = tmp_path_factory.mktemp("trained") / "home"
    async with crew(place, ROLES) as made:
        reporter = Reporter(made.tail, made.home, made.children)
        request = small_request(diagnosis={"auto_fix": False}, checkpoints={"every_steps": 50, "anchors": 1})
        session = await made.commands.submit(read_request(request).resolved())
        await until_ended(made, session)
        assert reporter._due.get_nowait() == session
    return place


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be harmed."""
    return Path(shutil.copytree(trained, tmp_path / "home"))


def run(home: Path, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(swarm, [*arguments, "--home", str(home)], input=stdin)


def asked(home: Path, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    result = run(home, *arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def rows_of(home: Path, count: int = 5) -> np.ndarray:
    state = Archive(Home(home)).read(stigmergy.Session("last", home=home).id).history.state
    return Dataset.open(home / "blobs" / "datasets" / state.training.dataset.root).columns("val")["x"][:count]


def blob_of(home: Path, which: str = "best") -> Path:
    found = asked(home, "inspect", f"last:{which}")
    return Path(found["path"])


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_a_model_is_loaded_from_the_files_and_answers_as_it_did_in_training(home: Path) -> None:
    session = stigmergy.Session("last", home=home)
    model = stigmergy.load(session, "best")
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    state = Archive(Home(home)).read(session.id).history.state
    val = Dataset.open(home / "blobs" / "datasets" / state.training.dataset.root).columns("val")
    said = [one["label"] for one in session.predict(val["x"])]
    right = np.mean([int(one) for one in said] == val["y"])
    assert right == pytest.approx(state.training.best.values["val_accuracy"])


def test_best_last_and_a_step_are_different_names_of_checkpoints(home: Path) -> None:
    session = stigmergy.Session("last", home=home)
    final = session.summary()["step"]
    last, same = session.load("last"), session.load(final)
    assert all(torch.equal(one, other) for one, other in zip(last.parameters(), same.parameters(), strict=True))
    with pytest.raises(NotFound, match="Kept steps"):
        session.load(7)


def test_a_flipped_bit_is_never_loaded(home: Path) -> None:
    damage(blob_of(home))
    with pytest.raises(NotVerified):
        stigmergy.load("last", "best", home=home)
    assert run(home, "inspect", "last:best").exit_code == 3
    assert run(home, "predict", "last", "-", stdin="[]").exit_code == 3


def test_metrics_are_a_table_with_one_row_per_step(home: Path) -> None:
    rows = stigmergy.metrics("last", home=home)
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert {"loss", "learning_rate", "gradient_norm", "val_loss"} <= rows[-1].keys()


def test_a_handle_knows_its_session(home: Path) -> None:
    session = stigmergy.Session("last", home=home)
    assert (session.state, session.wait() is session) == ("completed", True)
    assert session.events()[-1]["name"] == "session.sealed"
    assert session.id in repr(session)


def test_checkpoints_are_listed_with_roles_and_what_became_of_the_rest(home: Path) -> None:
    found = asked(home, "checkpoints", "last")
    assert found["states"]["kept"] >= 2
    assert found["states"]["pruned"] >= 1
    kept = [one for one in found["checkpoints"] if one["state"] == "kept"]
    assert {"best", "last", "final", "anchor"} <= {role for one in kept for role in one["kept_as"]}
    assert found["bytes"] == sum(one["bytes"] for one in kept)
    assert all(Path(one["path"]).is_file() for one in kept)
    page = run(home, "checkpoints", "last").stdout
    assert "pruned" not in page.splitlines()[1]
    assert len(run(home, "checkpoints", "last", "--all").stdout.splitlines()) > len(page.splitlines())


def test_a_checkpoint_says_epoch_optimizer_and_the_metrics_of_its_step(home: Path) -> None:
    listed = asked(home, "checkpoints", "last")
    best = next(line for line in listed["checkpoints"] if "best" in line["kept_as"])
    seen = Archive(Home(home)).read(listed["session"]).history.state.training.best
    found = asked(home, "inspect", "last:best")
    assert listed["optimizer"] == found["optimizer"]["type"] == "adamw"
    assert found["metrics"].items() >= seen.values.items()
    assert best["metrics"] == found["metrics"]
    assert found["epoch"] == best["epoch"] == pytest.approx(seen.epoch, abs=0.1)
    held = [tensor for tensor in found["tensors"] if tensor["name"].startswith("optimizer.")]
    assert found["optimizer"]["bytes"] == sum(tensor["bytes"] for tensor in held) > 0
    assert {"first_moment", "second_moment"} <= set(found["optimizer"]["memory"])
    page = run(home, "inspect", "last:best").stdout
    assert "adamw (learning_rate" in page
    assert "first_moment" in page
    alone = asked(home, "inspect", found["path"])
    assert (alone["epoch"], alone["metrics"], alone["optimizer"]["type"]) == (None, {}, None)
    assert alone["optimizer"]["bytes"] == found["optimizer"]["bytes"]


def test_a_checkpoint_whose_file_is_gone_is_told(home: Path) -> None:
    blob_of(home).unlink()
    result = run(home, "checkpoints", "last")
    assert result.exit_code == 3
    assert "MISSING" in result.stdout


@pytest.mark.parametrize("named", ["step", "best", "digest", "prefix", "path"])
def test_a_checkpoint_is_inspected_by_any_of_its_names(home: Path, named: str) -> None:
    best = next(one for one in asked(home, "checkpoints", "last")["checkpoints"] if "best" in one["kept_as"])
    names = {"step": f"last:{best['step']}", "best": "last:best", "digest": best["blob"], "prefix": best["blob"][:12]}
    seen = asked(home, "inspect", (names | {"path": best["path"]})[named])
    for key in ("blob", "step", "state_root", "weights_digest", "bytes"):
        assert seen[key] == best[key]
    assert ("state_root" in seen["verified"]) == (named in ("step", "best"))
    weight = next(one for one in seen["tensors"] if one["name"].endswith("weight"))
    assert weight["dtype"] == "float32"
    assert weight["norm"] > 0


@pytest.mark.parametrize(("name", "code"), [("last:7", 4), ("last:newest", 2), ("0123456789", 4), ("nowhere.bin", 4)])
def test_what_is_no_checkpoint_is_refused(home: Path, name: str, code: int) -> None:
    assert run(home, "inspect", name).exit_code == code


def test_a_file_that_is_no_checkpoint_is_not_verified(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(b"not a checkpoint at all")
    assert run(home, "inspect", str(other)).exit_code == 3


@pytest.fixture
def one_thread() -> Iterator[None]:
    """This process computes on as many threads as the job of the command: the last bits hang on that."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("form", ["json", "csv", "-"])
def test_rows_are_answered_the_same_in_every_form(home: Path, tmp_path: Path, form: str, one_thread: None) -> None:
    rows = rows_of(home).reshape(5, -1).tolist()
    text = json.dumps(rows) if form != "csv" else "\n".join(",".join(map(str, row)) for row in rows)
    path = tmp_path / f"rows.{form}"
    path.write_text(text)
    name, stdin = ("-", text) if form == "-" else (str(path), None)
    found = asked(home, "predict", "last", name, stdin=stdin)
    assert (found["rows"], found["task"]) == (5, "classification")
    assert found["predictions"] == stigmergy.Session("last", home=home).predict(rows)
    assert sum(found["predictions"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", b"caf\xe9\n1\n", "line 1 of {path} is not UTF-8: byte 0xe9."),
        ("cat.png", b"\x89PNG\r\n\x1a\n", "{path} is an image, and this session was trained with rows of 'digits'."),
    ],
)
def test_a_file_that_holds_no_rows_is_told_with_its_name(
    home: Path, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    result = run(home, "predict", "last", str(path))
    assert result.exit_code == 2
    assert says.format(path=path) in result.stderr


def test_rows_that_do_not_fit_are_named(home: Path) -> None:
    result = run(home, "predict", "last", "-", stdin="[[1, 2, 3]]")
    assert result.exit_code == 2
    assert "row 1: x has 3 values, the model takes 64" in result.stderr


def test_a_report_is_made_again_when_it_is_lost(home: Path) -> None:
    found = asked(home, "report", "last")
    page = Path(found["path"]).read_text()
    assert "## Where the time of training went" in page
    assert [Path(one).stem for one in found["plots"]] == ["loss", "metrics", "learning_rate", "gradient_norm"]
    for plot in found["plots"]:
        assert Path(plot).read_bytes().startswith(b"<svg")
        assert f"plots/{Path(plot).name}" in page
    figures = json.loads(Path(found["metrics"]).read_text())
    best = min(row["val_loss"] for row in figures["rows"] if "val_loss" in row)
    assert figures["metrics"]["val_loss"] == best
    assert {"step", "evaluation", "checkpoint", "log", "data"} <= figures["seconds"].keys()
    asked_again = read_request(yaml.safe_load(Path(found["request"]).read_text())).resolved()
    assert asked_again == Archive(Home(home)).read(figures["session"]).history.state.request


def test_the_same_log_gives_the_same_report(home: Path) -> None:
    first = asked(home, "report", "last")
    files = (first["path"], first["html"], first["metrics"], *first["plots"])
    before = {path: Path(path).read_bytes() for path in files}
    asked(home, "report", "last")
    assert all(Path(path).read_bytes() == content for path, content in before.items())
