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
from benchmarks.faults_cases.repairs import Repair, Try, counted_tries
from benchmarks.faults_cases.tasks import HELD_TASKS, ONCE_HELD_TASKS, TASKS, form
from contracts.request import read_request
from runtime.diagnosis.health import EXPECTED
from runtime.diagnosis.remedies import LADDERS


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


def test_what_the_product_tells_of_a_remedy_is_what_the_tables_of_record_have_counted() -> None:
    told = EXPECTED.read_text()
    assert told == faults.gains_of_record(), "a table has changed: python benchmarks/faults.py --record"
    for rule, remedies in json.loads(told).items():
        assert set(remedies) <= {rung.name for rung in LADDERS[rule]}, rule
        assert all(0 <= reached <= tried for reached, tried in remedies.values())


def test_a_remedy_is_counted_once_in_each_training_and_reached_the_twin_when_it_was_the_last() -> None:
    slower, wider = Try("oscillation", "lower_rate", {}), Try("underfitting", "more_capacity", {})
    repairs = [
        Repair((slower, slower), reached=True),
        Repair((slower, wider), reached=True),
        Repair((slower, Try("", "", {}), wider), reached=False),
        Repair((wider,), reached=True),
        Repair((), reached=False),
    ]
    assert counted_tries(repairs) == {"oscillation": {"lower_rate": [1, 3]}, "underfitting": {"more_capacity": [2, 3]}}


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
