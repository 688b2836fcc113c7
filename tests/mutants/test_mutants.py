"""Bugs that were planted once go on being noticed: the table fits the code, and some of it is tried at every run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.mutants.run import ROOT, Mutant, copied, drawn, mutants, verdict

DRAWN = 6
FEWEST = 60
ROOMS = {
    "agents/",
    "bus/",
    "contracts/",
    "runtime/audit/",
    "runtime/bundle/",
    "runtime/cli/",
    "runtime/commands/",
    "runtime/engine/",
    "runtime/jobs/",
    "runtime/log/",
    "runtime/log/lane_writer.py",
}


def test_every_mutant_is_one_line_of_a_file_as_it_is_and_names_a_test_that_is_there():
    table = mutants()
    assert len({one.id for one in table}) == len(table) >= FEWEST
    assert not {room for room in ROOMS if not any(one.path.startswith(room) for one in table)}
    for one in table:
        text = (ROOT / one.path).read_text(encoding="utf-8")
        assert one.planted(text) != text
        assert one.seconds > 0
        path, _, name = one.test.partition("::")
        assert re.search(rf"def {re.escape(name.partition('[')[0])}\(", (ROOT / path).read_text(encoding="utf-8")), one


def test_some_mutants_are_caught_by_the_tests_that_they_name():
    """Others each day; the whole table is tried by `python -m tests.mutants.run`."""
    seed = datetime.now(UTC).date().isoformat()
    chosen = drawn(mutants(), DRAWN, seed)
    assert len(chosen) == DRAWN
    print(f"seed {seed}: {[one.id for one in chosen]}")
    with copied() as copy:
        assert {one.id: verdict(copy, one) for one in chosen} == {one.id: "caught" for one in chosen}, seed


def test_a_mutant_of_a_line_that_is_not_there_does_not_apply(tmp_path: Path):
    (tmp_path / "x.py").write_text("a = 1\nb = 1\n")
    one = Mutant("none", "x.py", "a = 2", "a = 3", "tests/none.py::test_none", 1.0)
    with pytest.raises(ValueError, match="0 lines"):
        one.planted("a = 1\n")
    with pytest.raises(ValueError, match="2 lines"):
        one.planted("a = 2\na = 2\n")
    assert one.planted("a = 2\nb = 1\n") == "a = 3\nb = 1\n"
    assert verdict(tmp_path, one) == "does not apply"
    assert (tmp_path / "x.py").read_text() == "a = 1\nb = 1\n"
