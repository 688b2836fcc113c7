"""Options that a workload does not take are refused when a request begins, and never afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, model_validator

from contracts.errors import InvalidRequest
from runtime.cli.main import swarm
from runtime.home.workload_file import ANYTHING, option_names, refuse_unknown_options
from runtime.home.workloads import WorkloadEntry, Workloads, inspect_file
from runtime.jobs.children import Children
from tests.harness import crew, small_request

EXAMPLE = Path(__file__).parents[3] / "examples" / "workload" / "mine.py"


class Plain(BaseModel):
    width: int = 8
    depth: int = Field(2, validation_alias=AliasChoices("layers", AliasPath("net", "depth")))
    rate: float = Field(0.1, alias="lr")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Judging(BaseModel):
    width: int = 8

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"width": given.get("wide", 8)}


class Checked(BaseModel):
    width: int = 8

    @model_validator(mode="after")
    def _fits(self) -> Checked:
        return self


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (BaseModel, []),
        (Plain, ["width", "depth", "rate", "layers", "net", "lr"]),
        (Open, [ANYTHING]),
        (Judging, [ANYTHING]),
        (Checked, ["width"]),
    ],
)
def test_a_workload_takes_what_its_options_name_and_anything_where_only_they_can_tell(
    options: type[BaseModel], names: list[str]
) -> None:
    assert option_names(options) == names


def request(data: dict[str, Any] | None = None, model: dict[str, Any] | None = None) -> dict[str, Any]:
    named = {"workload": "mine"}
    return {
        "data": {"source": "workload", "options": data or {}, **named},
        "model": {"architecture": "workload", "options": model or {}, **named},
    }


def knowing(home: Path, options: tuple[str, ...] | None) -> Workloads:
    known = Workloads(home)
    with known._locked():
        known._write({"mine": WorkloadEntry("mine", "mine.py", "Mine", "0" * 64, options=options)})
    return known


def told(asked: dict[str, Any], known: Workloads) -> dict[str, str]:
    try:
        refuse_unknown_options(asked, known)
    except InvalidRequest as error:
        return {one.path: f"{one.message}. {one.cure}" for one in error.problems}
    return {}


def test_every_option_that_a_workload_does_not_take_is_told_with_the_nearest(tmp_path: Path) -> None:
    known = knowing(tmp_path, ("width", "rows"))
    assert told(request({"rows": 9}, {"width": 4}), known) == {}
    assert told(request({"row": 9}, {"width": 4, "mod": 1}), known) == {
        "data.options.row": "the workload 'mine' takes no option 'row'. Did you mean 'rows'?",
        "model.options.mod": "the workload 'mine' takes no option 'mod'. Known: rows, width.",
    }
    assert "has no class `Options`" in told(request(model={"mod": 1}), knowing(tmp_path, ()))["model.options.mod"]


@pytest.mark.parametrize("options", [None, (ANYTHING,)])
def test_where_anything_is_taken_or_nobody_has_looked_nothing_is_refused(
    tmp_path: Path, options: tuple[str, ...] | None
) -> None:
    assert told(request({"row": 9}, {"mod": 1}), knowing(tmp_path, options)) == {}


def test_a_search_is_refused_for_its_base_and_for_what_it_would_try(tmp_path: Path) -> None:
    known = knowing(tmp_path, ("width",))
    space = {"model.options.widht": {"type": "int", "low": 1, "high": 2}, "optimizer.learning_rate": {}}
    found = told({"base": request({"rows": 1}), "space": space}, known)
    assert set(found) == {"base.data.options.rows", "base.model.options.widht"}
    assert "Did you mean 'width'?" in found["base.model.options.widht"]
    assert told({"method": "lr_range", "base": request()}, known) == {}


async def test_what_begins_is_judged_and_what_has_begun_goes_on(tmp_path: Path) -> None:
    asked = request(model={"mod": 1})
    async with crew(tmp_path, ()) as made:
        before = await made.commands.submit(asked, request_id="of-before")
        knowing(made.home.root, ("width",))
        with pytest.raises(InvalidRequest):
            await made.commands.submit(asked, request_id="another")
        assert await made.commands.submit(asked, request_id="of-before") == before
        assert await made.commands.submit(asked, "trial", parent=before)
        assert await made.commands.submit(small_request())


@pytest.mark.asyncio(loop_scope="module")
async def test_the_options_of_a_workload_are_seen_when_it_is_added_and_kept(tmp_path: Path, children: Children) -> None:
    known = Workloads(tmp_path)
    added = await known.add(str(EXAMPLE), children)
    assert added.options == ("width", "rows", "turns")
    assert known.list() == [added]


def test_a_registry_of_before_is_read_and_judges_nothing(tmp_path: Path) -> None:
    (tmp_path / "workloads.json").write_text('{"mine": {"path": "mine.py", "class": "Mine", "digest": "00"}}')
    known = Workloads(tmp_path)
    assert known.list()[0].options is None
    assert told(request(model={"mod": 1}), known) == {}


@pytest.mark.parametrize("options", [("width", "rows", "turns"), None])
def test_a_check_names_the_option_though_nobody_has_looked_before(
    tmp_path: Path, options: tuple[str, ...] | None
) -> None:
    found = replace(inspect_file(str(EXAMPLE)), options=options)
    known = Workloads(tmp_path / "home")
    known._file.parent.mkdir()
    known._write({"mine": found})
    asked = tmp_path / "request.json"
    asked.write_bytes(orjson.dumps(request(model={"widht": 4})))
    result = CliRunner().invoke(swarm, ["check", str(asked), "--home", str(tmp_path / "home")])
    assert result.exit_code == 2
    assert "model.options.widht: the workload 'mine' takes no option 'widht'" in result.stderr
