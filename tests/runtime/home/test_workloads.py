from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from contracts.errors import InvalidInput, NotFound, NotVerified, UserCodeFailed
from runtime.engine import workload as engine
from runtime.home import workloads
from runtime.home.workloads import Workloads, inspect_file, load
from runtime.jobs.children import Children

MINE = """
from runtime.engine.workload import Workload
from torch import nn

class Mine(Workload):
    \"\"\"Answers with one layer.\"\"\"

    def build(self, o, facts):
        return nn.Linear(2, 2)

    def loss(self, model, batch):
        return model(batch["x"]).sum()
"""

IN_CHILDREN = pytest.mark.asyncio(loop_scope="module")

ANOTHER = MINE + "\nclass Other(Workload):\n    pass\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def known(tmp_path: Path) -> Workloads:
    return Workloads(tmp_path / "home")


@IN_CHILDREN
async def test_an_added_workload_is_found_by_the_name_of_its_file(
    known: Workloads, mine: Path, children: Children
) -> None:
    added = await known.add(str(mine), children)
    assert (added.name, added.class_name, added.path) == ("mine", "Mine", str(mine))
    assert known.resolve("mine") == added
    assert known.list() == [added]


@IN_CHILDREN
async def test_a_name_can_be_chosen_and_forgotten(known: Workloads, mine: Path, children: Children) -> None:
    await known.add(f"{mine}:Mine", children, name="spirals")
    assert [one.name for one in known.list()] == ["spirals"]
    known.remove("spirals")
    with pytest.raises(NotFound):
        known.resolve("spirals")


@IN_CHILDREN
async def test_a_changed_file_is_refused_showing_both_digests_and_the_cure(
    known: Workloads, mine: Path, children: Children
) -> None:
    added = await known.add(str(mine), children)
    mine.write_text(MINE + "# changed\n")
    now = inspect_file(str(mine)).digest
    with pytest.raises(NotVerified) as caught:
        known.resolve("mine")
    assert added.digest in caught.value.message
    assert now in caught.value.message
    assert f"swarm workload add {mine}" in caught.value.cure
    await known.add(str(mine), children)
    assert known.resolve("mine").digest == now


@IN_CHILDREN
async def test_what_the_import_raises_is_shown_and_nothing_is_added(
    known: Workloads, mine: Path, children: Children
) -> None:
    mine.write_text(MINE + "\nraise ValueError('my own mistake')\n")
    with pytest.raises(UserCodeFailed, match="my own mistake"):
        await known.add(str(mine), children)
    assert known.list() == []


@IN_CHILDREN
async def test_a_workload_that_lacks_a_method_is_refused(known: Workloads, mine: Path, children: Children) -> None:
    mine.write_text(MINE.replace("def loss", "def lost"))
    with pytest.raises(UserCodeFailed, match="lacks loss"):
        await known.add(str(mine), children)


@IN_CHILDREN
async def test_a_file_beside_the_workload_is_not_imported_because_nobody_pins_it(
    known: Workloads, mine: Path, children: Children
) -> None:
    mine.with_name("layers.py").write_text("WIDTH = 3\n")
    mine.write_text("import layers\n" + MINE)
    with pytest.raises(UserCodeFailed, match="a file beside it"):
        await known.add(str(mine), children)


def test_looking_at_a_file_runs_nothing_of_it(mine: Path, tmp_path: Path) -> None:
    mine.write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n" + MINE)
    assert inspect_file(str(mine)).class_name == "Mine"
    assert not (tmp_path / "trace").exists()


def test_of_classes_that_derive_from_each_other_the_last_one_is_meant(mine: Path) -> None:
    mine.write_text(MINE + "\nclass Wider(Mine):\n    pass\n")
    assert inspect_file(str(mine)).class_name == "Wider"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "defines no Workload"),
        ("def broken(:\n", "is not Python"),
        ("x" + ".a" * 50_000, "nested too deep"),
        (ANOTHER, "defines 2 workloads: Mine, Other"),
        (MINE.replace("class Mine(Workload)", "class Mine(object)"), "defines no Workload"),
    ],
)
def test_a_file_without_exactly_one_workload_is_refused_with_the_reason(mine: Path, text: str, says: str) -> None:
    mine.write_text(text)
    with pytest.raises(InvalidInput, match=says) as caught:
        inspect_file(str(mine))
    assert caught.value.cure


def test_a_file_without_a_workload_is_told_with_the_imports_that_are_not_there(mine: Path) -> None:
    mine.write_text("import sys, nope.deep\nfrom os import path\nfrom neither import Workload\n")
    with pytest.raises(InvalidInput, match="defines no Workload") as caught:
        inspect_file(str(mine))
    assert caught.value.cure.endswith("It also imports what is not installed: nope, neither.")


def test_a_class_that_is_not_there_is_refused_naming_those_that_are(mine: Path) -> None:
    with pytest.raises(InvalidInput, match="no workload class 'Yours'") as caught:
        inspect_file(f"{mine}:Yours")
    assert "Mine" in caught.value.cure


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inspect_file(str(tmp_path / "nowhere.py"))


def test_a_job_loads_only_the_pinned_bytes(mine: Path) -> None:
    pinned = inspect_file(str(mine))
    assert load(pinned.path, pinned.class_name, pinned.digest).__name__ == "Mine"
    mine.write_text(MINE + "# changed\n")
    with pytest.raises(NotVerified, match=pinned.digest):
        load(pinned.path, pinned.class_name, pinned.digest)


def test_an_enlisted_workload_is_known_to_the_engine(mine: Path) -> None:
    workloads.enlist([inspect_file(str(mine), name="enlisted")])
    assert engine.find("enlisted").__name__ == "Mine"


def test_a_request_needs_the_workloads_that_its_sections_name(known: Workloads, mine: Path) -> None:
    pinned = inspect_file(str(mine))
    known._file.parent.mkdir()
    known._write({"mine": pinned})
    section = {"architecture": "workload", "workload": "mine"}
    assert list(known.needed({"model": section, "data": {"source": "workload", "workload": "mine"}})) == [pinned]
    assert list(known.needed({"model": {"architecture": "mlp"}, "data": {"source": "digits"}})) == []


def test_an_unknown_name_is_answered_with_the_nearest_known_one(known: Workloads, mine: Path) -> None:
    known._file.parent.mkdir()
    known._write({"mine": inspect_file(str(mine))})
    with pytest.raises(NotFound) as caught:
        known.resolve("mime")
    assert "Did you mean 'mine'?" in caught.value.cure


def test_an_installed_package_brings_workloads_without_being_imported(
    known: Workloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "brought_along"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the host imported a package of models')\n")
    (package / "model.py").write_text(MINE)
    about = tmp_path / "site" / "brought_along-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brought-along\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[stigmergy.workloads]\nbrought = brought_along.model:Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert [point.name for point in metadata.entry_points(group=workloads.GROUP)] == ["brought"]
    found = known.resolve("brought")
    assert (found.path, found.module) == (str(package / "model.py"), "brought_along.model")


def test_a_registry_that_cannot_be_read_says_so(known: Workloads) -> None:
    known._file.parent.mkdir()
    known._file.write_text("[1")
    with pytest.raises(InvalidInput, match="cannot be read"):
        known.list()


def test_the_example_is_a_workload() -> None:
    example = Path(__file__).parents[3] / "examples" / "workload" / "mine.py"
    assert inspect_file(str(example)).class_name == "Spirals"
