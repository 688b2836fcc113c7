"""What the bench of faults promises: its cases are fixed, and the held-out half is not run twice by accident."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.faults_cases.classes import FAULTS, HEALTHY, HELD_CLASSES, cases, healthy, held_healthy
from benchmarks.faults_cases.tasks import HELD_TASKS, TASKS
from contracts.request import read_request


def test_half_of_the_tasks_and_a_third_of_the_classes_are_held_out_as_before_any_tuning() -> None:
    assert HELD_TASKS == ("breast_cancer", "images", "blobs")
    assert (
        *("activation_twice", "bad_initialisation", "dead_units"),
        *("label_noise", "noisy_validation", "wrong_loss"),
    ) == HELD_CLASSES
    every = cases()
    assert len({one.id for one in every}) == len(every) == 160
    assert set(Counter(one.fault.name for one in every).values()) == {10}
    assert len(FAULTS) == 16
    assert {one.task for one in every if not one.held} <= set(TASKS) - set(HELD_TASKS)
    assert not {one.fault.name for one in every if not one.held} & set(HELD_CLASSES)
    assert sum(held_healthy(number) for number in range(HEALTHY)) == 99


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
        alike = asked.rows.task if asked.rows.task in ("diabetes", "tokens") else "digits"
        read_request({**asked.request, "data": {"source": alike}})


def test_the_held_out_half_is_not_run_again_unless_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "faults-held.json"
    table.write_text("{}")
    monkeypatch.setattr(faults, "HELD_TABLE", table)
    monkeypatch.setattr(sys, "argv", ["faults.py", "--held", "--store", str(tmp_path / "store")])
    with pytest.raises(SystemExit, match="was run once"):
        asyncio.run(faults.main())
    assert not (tmp_path / "store").exists()
