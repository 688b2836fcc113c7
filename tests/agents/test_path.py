"""What is computed again on a path, held field by field against what was recorded."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from agents.trainer.repeatability import RecordedPath, difference
from contracts.event import pack
from contracts.trainer import (
    CheckpointWritten,
    Computed,
    ControlEvaluated,
    WindowRecorded,
    WindowSensors,
    evidence,
)
from runtime.replay.comparison import INCIDENTAL
from tests.contracts.told import DIGEST, Told

OTHER = "e" * 64


def window(first: int = 0, last: int = 2, segment: int = 1) -> WindowRecorded:
    return WindowRecorded(
        segment=segment,
        first=first,
        last=last,
        losses=pack(struct.pack("<2f", 0.5, math.nan)),
        gradient_norm=math.nan,
        learning_rate=0.1,
        index_digest=DIGEST,
        weights_digest=DIGEST,
        finite=False,
        scalars={"penalty": pack(struct.pack("<f", 1.0))},
        **evidence(()),
    )


def evaluated(step: int = 2, segment: int = 1) -> ControlEvaluated:
    about: Any = dict(segment=segment, step=step, epoch=1, values={"val_loss": math.nan}, metric="val_loss")
    return ControlEvaluated(**about, improved=False, best=0.5, best_step=1, patience_left=3, stop=False)


def written(step: int = 2, segment: int = 1) -> CheckpointWritten:
    about: Any = dict(segment=segment, step=step, reason="best", state_root=DIGEST, weights_digest=DIGEST)
    return CheckpointWritten(**about, blob=DIGEST, bytes=12)


CHANGED: dict[type[Computed], dict[str, Any]] = {
    WindowRecorded: {
        "segment": 2,
        "first": 1,
        "last": 3,
        "losses": pack(struct.pack("<2f", 0.25, math.nan)),
        "gradient_norm": math.inf,
        "learning_rate": math.nextafter(0.1, 1.0),
        "index_digest": OTHER,
        "weights_digest": OTHER,
        "finite": True,
        "layer_names": ["dense"],
        "layer_figures": pack(struct.pack("<4d", 1.0, 1.0, 1.0, math.nan)),
        "scalars": {"penalty": pack(struct.pack("<f", 2.0))},
        "sensors": WindowSensors(cosine=pack(struct.pack("<f", 0.5))),
    },
    ControlEvaluated: {
        "segment": 2,
        "step": 3,
        "epoch": 2,
        "values": {"val_loss": 0.5},
        "metric": "val_accuracy",
        "improved": True,
        "best": None,
        "best_step": None,
        "patience_left": 2,
        "stop": True,
    },
    CheckpointWritten: {
        "segment": 2,
        "step": 3,
        "state_root": OTHER,
        "weights_digest": OTHER,
        "blob": OTHER,
        "bytes": 13,
    },
}
HONEST: tuple[Computed, ...] = (window(), evaluated(), written())


FIELDS = [(event, field) for event in HONEST for field in sorted(type(event).model_fields.keys() - INCIDENTAL)]
"""Every event that is computed, with every field that is."""


@pytest.mark.parametrize(("event", "field"), FIELDS, ids=[f"{event.wire}.{field}" for event, field in FIELDS])
def test_every_field_of_what_is_computed_again_is_compared(event: Computed, field: str) -> None:
    other = event.model_copy(update={field: CHANGED[type(event)][field]})
    found = difference(event, other)
    assert found is not None
    assert found.field == f"{event.wire}.{field}"
    assert found.recorded != found.computed


@pytest.mark.parametrize("event", HONEST, ids=lambda event: event.wire)
def test_what_comes_out_as_recorded_differs_in_nothing_though_it_is_no_number(event: Computed) -> None:
    assert difference(event, type(event).model_validate_json(event.model_dump_json())) is None


def test_why_a_checkpoint_is_kept_is_not_compared() -> None:
    assert difference(written(), written().model_copy(update={"reason": "final"})) is None


def test_what_the_path_holds_from_the_step_on_is_compared_and_the_rest_is_new() -> None:
    told = Told()
    for step in (0, 2, 4):
        told.say("trainer", window(step, step + 2))
        told.say("trainer", evaluated(step + 2))
        told.say("trainer", written(step + 2))
    told.applied(4, 2)
    known = RecordedPath.of(told.facts, told.now, 4).known
    assert set(known) == {("window.recorded", 2, 4), ("control.evaluated", 4, 4), ("checkpoint.written", 4, 4)}
    recorded = RecordedPath(known)
    assert recorded.take(window(2, 4)) is None
    assert recorded.take(window(4, 6, segment=2)) is True
    divergence = recorded.take(evaluated(4).model_copy(update={"stop": True}))
    assert getattr(divergence, "field", None) == "control.evaluated.stop"
    assert recorded.reproduced == 1
