"""What the bench of faults promises: its cases are fixed, and the held-out half is not run twice by accident."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.faults_cases.classes import FAULTS, HEALTHY, cases, healthy, held_healthy
from benchmarks.faults_cases.tasks import HELD_TASKS, ONCE_HELD_TASKS, TASKS, form
from contracts.request import read_request


def test_cases_of_tasks_that_no_rule_was_made_with_are_held_out_as_they_were_before() -> None:
    assert HELD_TASKS == ("wine", "spirals", "waves", "shapes", "phrases")
    assert ONCE_HELD_TASKS == ("breast_cancer", "images", "blobs")
    every = cases()
    assert len({one.id for one in every}) == len(every) == 240
    assert set(Counter(one.fault.name for one in every).values()) == {15}
    assert len(FAULTS) == 16
    assert {one.task for one in every if not one.held} == set(TASKS)
    assert Counter(one.fault.name for one in every if one.held) == dict.fromkeys(FAULTS, 5)
    assert sum(held_healthy(number) for number in range(HEALTHY)) == 100
    assert json.loads(faults.SEAL.read_text())["held"] == faults.held_digest()


def test_every_candidate_is_a_request_and_the_same_one_each_time() -> None:
    every = []
    for case in cases():
        for one, other in zip(case.candidates(), case.candidates(), strict=True):
            assert one == other
            assert one.faulty != one.twin
            every += [one.faulty, one.twin]
    for number in range(HEALTHY):
        assert healthy(number) == healthy(number)
        every += healthy(number)[1]
    for asked in every:
        alike = form(asked.rows.task) if form(asked.rows.task) in ("diabetes", "tokens") else "digits"
        read_request({**asked.request, "data": {"source": alike}})


def test_the_held_out_half_is_run_once_and_with_the_rules_that_were_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, seal = tmp_path / "faults-held.json", tmp_path / "seal.json"
    monkeypatch.setattr(faults, "HELD_TABLE", table)
    monkeypatch.setattr(faults, "SEAL", seal)
    monkeypatch.setattr(sys, "argv", ["faults.py", "--held", "--store", str(tmp_path / "store")])
    for told, why in (
        ({"held": faults.held_digest(), "rules": "0" * 16}, "the rules are not those"),
        ({"held": "others", "rules": faults.judges_digest()}, "the held-out cases are not those"),
        ({"held": faults.held_digest(), "rules": faults.judges_digest()}, "was run once"),
    ):
        seal.write_text(json.dumps(told))
        table.write_text("{}")
        with pytest.raises(SystemExit, match=why):
            asyncio.run(faults.main())
    assert not (tmp_path / "store").exists()
