"""Two sessions side by side: everything in which they differ is named, and nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from contracts.event import pack
from contracts.trainer import InterventionApplied, WindowRecorded
from runtime.audit.log_check import make_bundle
from runtime.cli.main import swarm
from runtime.log.archive import Archive
from runtime.replay.difference import difference
from tests.runtime.recorded_home import DIGEST, RecordedHome, claimed, evaluated, window


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def compared(recorded: RecordedHome, one: str, other: str) -> dict[str, Any]:
    archive = Archive(recorded.home)
    return difference(archive.read(one).history, archive.read(other).history)


def lossy(first: int, last: int, losses: list[float], **changes: Any) -> WindowRecorded:
    """A window with these losses."""
    packed = pack(struct.pack(f"<{last - first}f", *losses))
    return window(first, last).model_copy(update={"losses": packed} | changes)


def told(recorded: RecordedHome, *windows: WindowRecorded, request: dict[str, Any] | None = None) -> str:
    session = recorded.requested(**request or {})
    recorded.say(session, "trainer", claimed(), *windows)
    return session


def test_a_session_and_its_repetition_do_not_differ(recorded: RecordedHome):
    found = compared(recorded, recorded.trained(), recorded.trained())
    assert found["same"]
    differing = {name: found[name] for name in ("request", "resolved", "environment", "code", "data") if found[name]}
    assert differing == {}
    assert found["windows"] == {"same": 2, "parted": None, "reached": [100, 100]}
    assert found["evaluations"] == {"same": 2, "parted": None}
    assert found["metrics"]["val_loss"] == [0.25, 0.25]


def test_what_was_asked_for_is_compared_path_by_path(recorded: RecordedHome):
    one, other = recorded.requested(), recorded.requested(training={"epochs": 3}, export={"formats": ["onnx", "pt2"]})
    assert compared(recorded, one, other)["request"] == {
        "training.epochs": [2, 3],
        "export.formats.1": [None, "pt2"],
        "export.quantize": [[], None],
    }


def test_the_window_and_the_very_step_at_which_two_sessions_part_are_named(recorded: RecordedHome):
    one = told(recorded, lossy(0, 2, [4.0, 3.0]), lossy(2, 5, [2.0, 2.0, 1.0]))
    other = told(recorded, lossy(0, 2, [4.0, 3.0]), lossy(2, 5, [2.0, 1.5, 1.0]))
    found = compared(recorded, one, other)
    assert not found["same"]
    assert found["windows"]["same"] == 1
    assert found["windows"]["parted"] == {"first": 2, "last": 5, "field": "losses", "step": 4}


def test_causes_are_named_before_their_effects(recorded: RecordedHome):
    one = told(recorded, lossy(0, 2, [4.0, 3.0]))
    other = told(recorded, lossy(0, 2, [4.0, 2.0], learning_rate=0.5, weights_digest="f" * 64))
    parted = compared(recorded, one, other)["windows"]["parted"]
    assert (parted["field"], parted["step"]) == ("learning_rate", 2)


def test_losses_are_compared_step_by_step_when_windows_are_cut_otherwise(recorded: RecordedHome):
    one = told(recorded, lossy(0, 3, [4.0, 3.0, 2.0]), lossy(3, 6, [1.0, 0.5, 0.25]))
    same = told(recorded, lossy(0, 2, [4.0, 3.0]), lossy(2, 6, [2.0, 1.0, 0.5, 0.25]))
    later = told(recorded, lossy(0, 2, [4.0, 3.0]), lossy(2, 6, [2.0, 1.0, 0.5, 0.125]))
    assert compared(recorded, one, same)["windows"] == {"same": 0, "parted": None, "reached": [6, 6]}
    assert compared(recorded, one, later)["windows"]["parted"] == {"first": 3, "last": 6, "field": "losses", "step": 6}


def test_only_the_path_is_compared_and_the_decision_that_changed_it_is_told(recorded: RecordedHome):
    straight = told(recorded, lossy(0, 2, [4.0, 3.0]), lossy(2, 4, [2.0, 1.0]))
    astray = told(recorded, lossy(0, 2, [4.0, 3.0]), lossy(2, 4, [9.0, 9.0]))
    back = InterventionApplied(proposal="p", by="rule", segment=2, step=2, changes={"stop": False}, reproducible=True)
    recorded.say(astray, "trainer", back, lossy(2, 4, [2.0, 1.0], segment=2))
    found = compared(recorded, straight, astray)
    assert found["windows"] == {"same": 2, "parted": None, "reached": [4, 4]}
    assert not found["decisions"]["same"]
    assert found["decisions"]["applied"] == [[], [{"segment": 2, "step": 2, "by": "rule", "changes": {"stop": False}}]]


def test_machines_are_compared_by_their_environment_and_their_families_of_operators(recorded: RecordedHome):
    one, other = recorded.requested(), recorded.requested()
    changes = {"fingerprint": "f" * 64, "families": {"gelu": "1"}, "environment": {"torch": "2"}, "engine_bits": 2}
    recorded.say(one, "trainer", claimed())
    recorded.say(other, "trainer", claimed().model_copy(update=changes | {"resolved": {"threads": 4}}))
    found = compared(recorded, one, other)
    assert found["fingerprint"] == {"digests": [DIGEST, "f" * 64], "families": ["gelu"]}
    assert found["environment"] == {"torch": [None, "2"]}
    assert found["code"] == {"engine_bits": [1, 2]}
    assert found["resolved"] == {"steps_total": [100, None], "threads": [None, 4]}


def test_the_first_evaluation_that_differs_names_the_metric(recorded: RecordedHome):
    one, other = recorded.requested(), recorded.requested()
    for session, loss in ((one, 0.25), (other, 0.5)):
        recorded.say(session, "trainer", claimed(), evaluated(50, 1.0), evaluated(100, loss))
    found = compared(recorded, one, other)
    assert found["evaluations"]["same"] == 1
    assert found["evaluations"]["parted"]["step"] == 100
    assert set(found["evaluations"]["parted"]["values"]) == {"val_loss", "val_accuracy"}
    assert found["metrics"]["val_loss"] == [0.25, 0.5]


def run(recorded: RecordedHome, *arguments: str) -> Result:
    return CliRunner().invoke(swarm, ["diff", *arguments, "--home", str(recorded.home.root)])


def test_diff_reads_files_and_bundles_with_no_swarm_up(recorded: RecordedHome, tmp_path: Path):
    one, other = recorded.trained(), told(recorded, window(0, 50), request={"name": "another"})
    path = make_bundle(Archive(recorded.home), one, recorded.blobs, tmp_path / "one.zip").path
    found = json.loads(run(recorded, str(path), other[:20], "--json").stdout)
    assert found["sessions"] == [one, other]
    assert found["request"] == {"name": ["digits", "another"]}
    assert found["windows"]["reached"] == [100, 50]
    assert run(recorded, one, "zz").exit_code == 4


def test_diff_reads_as_a_page(recorded: RecordedHome):
    one, other = recorded.trained(), told(recorded, lossy(0, 2, [4.0, 3.0]), request={"training": {"epochs": 9}})
    text = run(recorded, one, other).stdout
    assert "request.training.epochs  2" in text
    assert "then they part in steps 1..50: losses, from step 1 on" in text
    assert "the same" in text
    same = run(recorded, one, one).stdout
    assert "2 the same, none differs" in same
