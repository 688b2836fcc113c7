"""From an empty folder to a judged request: init and check."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from contracts.errors import ChildDied
from contracts.request import read_request
from contracts.request.data import Data
from contracts.request.model import Model
from contracts.request.optimizer import Optimizer, Schedule
from contracts.request.reading import tags_of
from runtime.api.children import ask_child
from runtime.api.request_file import read
from runtime.cli.main import swarm
from runtime.jobs.job import Seal
from runtime.model.jobs import RehearsalTask
from tests.runtime.jobs.jobs_for_tests import Given, crash


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(swarm, list(arguments))


def asked(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_init_writes_passes_the_check(folder: Path):
    assert asked("init", "--mode", "optimization")["path"] == str(folder / "request.yaml")
    found = asked("check", "request.yaml")
    assert found["ok"] is True
    assert found["rows"]["train"] > 1000
    assert found["steps_total"] == 50 * found["rows"]["train"] // 64 + 1
    assert found["loss"] == pytest.approx(2.3, abs=0.2)
    assert found["memory_bytes"] > found["checkpoint_bytes"] > 0
    assert list(folder.iterdir()) == [folder / "request.yaml"]


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does(folder: Path):
    request = {"data": {"source": "digits"}, "model": {"architecture": "cnn", "channels": [64, 64]}}
    (folder / "wide.yaml").write_text(yaml.safe_dump({**request, "training": {"batch_size": 1024}}))
    result = run("check", "wide.yaml", "--memory", "0.08")
    assert result.exit_code == 1, result.stdout
    assert "a step of 1024 x 1 rows does not fit: " in result.stderr
    found = re.search(r"--set training.batch_size=(\d+) --set training.accumulate=(\d+)", result.stderr)
    assert found is not None, result.stderr
    rows, parts = map(int, found.groups())
    assert (rows * parts, rows < 1024) == (1024, True)
    assert asked("check", "wide.yaml", "--memory", "0.08", *found.group().split())["ok"] is True


def test_what_cannot_be_halved_is_not(tmp_path: Path):
    def halved(rows: int, parts: int) -> tuple[int, int] | None:
        plan = {"request": {"training": {}}, "resolved": {"batch": rows, "accumulate": parts}}
        half = RehearsalTask(plan, Seal(1), "cpu", tmp_path, tmp_path, None, ()).halved()
        return half.parts if half else None

    assert (halved(64, 3), halved(2, 5000), halved(63, 1)) == ((32, 6), (1, 10_000), (21, 3))
    assert (halved(1, 1), halved(2, 5001)) == (None, None)


def test_init_writes_a_workload_that_can_be_trained(folder: Path):
    made = asked("init", "--from", "mine.py")
    assert (made["workload"]["name"], made["workload"]["code"]) == ("mine", [])
    found = asked("check", "request.yaml")
    assert (found["name"], found["code"]) == ("mine", [])
    assert [one["name"] for one in asked("workload", "list")["workloads"]] == ["mine"]


def test_silent_bugs_of_a_workload_are_told_with_line_and_cure_and_refuse_nothing(folder: Path):
    asked("init", "--from", "mine.py")
    text = (folder / "mine.py").read_text().replace("facts.outputs))", "facts.outputs), nn.Softmax(1))")
    (folder / "mine.py").write_text(text)
    line = next(at for at, one in enumerate(text.splitlines(), 1) if "Softmax" in one)
    added = run("workload", "add", "mine.py")
    assert added.exit_code == 0
    assert (
        f"warning: mine.py:{line} squashed_answers: The model ends in softmax, and cross_entropy takes" in added.stdout
    )
    assert "  hint: Hand the loss the logits" in added.stdout
    found = asked("check", "request.yaml")
    (told,) = found["code"]
    assert found["ok"] is True
    assert (told["name"], told["severity"], told["line"]) == ("squashed_answers", "warning", line + 3)
    assert told["file"] == str(folder / "mine.py")
    assert "softmax, between 0." in told["message"]
    (folder / "mine.py").write_text(text.replace('model(batch["x"])', 'model(batch["x"]).detach()'))
    asked("workload", "add", "mine.py")
    failed = run("check", "request.yaml")
    assert failed.exit_code == 1
    assert f"mine.py:{line + 3} cut_graph: Linear 0 (weight, bias) got no gradient" in failed.stderr


def test_a_workload_that_was_changed_is_named_until_it_is_added_again(folder: Path):
    asked("init", "--from", "mine.py")
    with (folder / "mine.py").open("a") as file:
        file.write("# changed\n")
    result = run("check", "request.yaml")
    assert result.exit_code == 3
    assert "swarm workload add" in result.stderr
    again = asked("workload", "add", "mine.py")
    assert again["was"] != again["digest"]
    assert asked("workload", "remove", "mine") == {"removed": "mine"}
    assert run("check", "request.yaml").exit_code == 4


def test_init_lists_every_choice_there_is(folder: Path):
    asked("init")
    text = (folder / "request.yaml").read_text()
    for what, union in {"source": Data, "architecture": Model, "type": Optimizer, "type ": Schedule}.items():
        assert f"# {what.strip()}: {', '.join(tags_of(union))}\n" in text
    assert len(tags_of(Schedule)) >= 9


def test_init_writes_a_request_for_a_table(folder: Path):
    (folder / "rows").mkdir()
    lines = [f"{at},{at % 7},{'yes' if at % 2 else 'no'}" for at in range(200)]
    (folder / "rows" / "my table.csv").write_text("\n".join(["a,b,is it: so", *lines]) + "\n")
    asked("init", "--data", "rows/my table.csv", "--target", "is it: so")
    found = asked("check", "request.yaml")
    assert (found["ok"], sum(found["rows"].values())) == (True, 200)


def test_init_writes_a_request_for_images_in_folders(folder: Path):
    (folder / "pets").mkdir()
    (folder / "here").mkdir()
    asked("init", "--data", "pets", "-o", "here/request.yaml")
    request = read_request(read("here/request.yaml")).resolved()
    assert (request["data"]["source"], request["data"]["path"]) == ("image_folder", str(folder / "pets"))
    assert request["model"]["architecture"] == "cnn"


def test_init_writes_a_request_for_a_workload_on_rows_of_a_table(folder: Path):
    (folder / "t.jsonl").write_text('{"a": 1, "y": 2}\n')
    asked("init", "--from", "mine.py", "--data", "t.jsonl", "--target", "y")
    request = read_request(read("request.yaml")).resolved()
    assert (request["data"]["source"], request["model"]["workload"]) == ("jsonl", "mine")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--data", "none.csv"], 4, "there is no file or folder 'none.csv'"),
        (["--data", "t.csv"], 2, "--target COLUMN"),
        (["--data", "t.xyz", "--target", "y"], 2, ".parquet"),
        (["--data", "pets", "--target", "y"], 2, "Leave --target out"),
        (["--target", "y"], 2, "--data"),
    ],
)
def test_init_says_what_it_needs_of_rows(folder: Path, arguments: list[str], code: int, says: str):
    (folder / "pets").mkdir()
    for name in ("t.csv", "t.xyz"):
        (folder / name).write_text("a,y\n1,2\n")
    result = run("init", *arguments)
    assert result.exit_code == code
    assert says in result.stderr
    assert not (folder / "request.yaml").exists()


def test_init_does_not_overwrite_what_is_there(folder: Path):
    (folder / "request.yaml").write_text("mine\n")
    assert run("init").exit_code == 6
    assert (folder / "request.yaml").read_text() == "mine\n"
    assert run("init", "--force").exit_code == 0


def test_init_writes_yaml_only(folder: Path):
    assert run("init", "-o", "request.toml").exit_code == 2


def test_check_lists_every_problem_of_the_schema(folder: Path):
    (folder / "bad.yaml").write_text("data: {source: digitss}\nmodel: {architecture: mlp, hidden: [0]}\nextra: 1\n")
    result = run("check", "bad.yaml", "--json")
    assert result.exit_code == 2
    paths = [one["path"] for one in json.loads(result.stdout)["error"]["problems"]]
    assert paths == ["data.source", "model.hidden.0", "extra"]


def test_check_reads_the_data(folder: Path):
    (folder / "table.csv").write_text("a,b,label\n1,2,x\n3,oops,y\n")
    (folder / "r.yaml").write_text(
        "data: {source: csv, path: table.csv, target: label}\nmodel: {architecture: linear}\n"
    )
    result = run("check", "r.yaml", "--json")
    assert result.exit_code == 2
    assert "oops" in json.loads(result.stdout)["error"]["message"]


def test_check_refuses_data_outside_the_allowed_folders_and_takes_it_when_allowed(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    other = tmp_path_factory.mktemp("elsewhere")
    rows = "\n".join(f"{n},{n % 7},{'xy'[n % 2]}" for n in range(200))
    (other / "table.csv").write_text(f"a,b,label\n{rows}\n")
    (folder / "r.yaml").write_text(
        f"data: {{source: csv, path: {other / 'table.csv'}, target: label}}\nmodel: {{architecture: linear}}\n"
    )
    result = run("check", "r.yaml")
    assert result.exit_code == 2
    assert "--data-root" in result.stderr
    assert asked("check", "r.yaml", "--data-root", str(other))["ok"] is True


def test_an_exception_in_a_workload_is_shown_as_the_user_s_own_frame(folder: Path):
    asked("init", "--from", "mine.py")
    text = (folder / "mine.py").read_text().replace('model(batch["x"])', 'model(batch["oops"])')
    (folder / "mine.py").write_text(text)
    asked("workload", "add", "mine.py")
    result = run("check", "request.yaml")
    assert result.exit_code == 1
    assert "oops" in result.stderr
    assert "mine.py" in result.stderr


def test_check_refuses_what_memory_cannot_hold_before_it_takes_any(folder: Path):
    """Eight such layers are a terabyte: had it tried, the system would have ended it."""
    (folder / "r.yaml").write_text(f"data: {{source: digits}}\nmodel: {{architecture: mlp, hidden: {[65536] * 8}}}\n")
    result = run("check", "r.yaml", "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["code"], error["path"]) == (1, "out-of-memory", "model")
    assert "GiB are free" in error["message"]
    assert "smaller model" in error["cure"]


def test_what_a_child_printed_before_it_died_is_told_and_no_file_that_is_gone(folder: Path):
    asked("init", "--from", "mine.py")
    text = (folder / "mine.py").read_text()
    (folder / "mine.py").write_text(
        text.replace(
            "    def loss(", '    def loss(*_):\n        print("so far"); import os; os.abort()\n\n    def later('
        )
    )
    asked("workload", "add", "mine.py")
    result = run("check", "request.yaml")
    assert result.exit_code == 1
    assert "SIGABRT" in result.stderr
    assert "so far" in result.stderr
    assert "swarm-check-" not in result.stderr


def test_what_a_child_of_any_command_printed_before_it_died_is_told(folder: Path):
    with pytest.raises(ChildDied, match=r"SIGSEGV[^\0]*\n  before the crash\n") as died:
        asyncio.run(ask_child(crash, Given(), log=folder / "log"))
    assert str(folder) not in died.value.cure


def test_a_loss_that_returns_nothing_is_told_in_the_user_s_words(folder: Path):
    asked("init", "--from", "mine.py")
    text = (folder / "mine.py").read_text()
    (folder / "mine.py").write_text(text.replace("    def loss(", "    def loss(*_):\n        pass\n\n    def later("))
    asked("workload", "add", "mine.py")
    result = run("check", "request.yaml")
    assert result.exit_code == 1
    assert "returned None, which is no tensor" in result.stderr
    assert "hint: Return the loss as a tensor" in result.stderr
