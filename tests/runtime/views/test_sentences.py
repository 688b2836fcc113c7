"""Every event that our roles can say has a sentence, made of what the event holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from contracts.common import ChildEnded
from contracts.envelope import read
from contracts.event import SPOKEN, Event, Unknown, events
from contracts.resource_monitor import ResourcesAlerted, ResourcesMeasured
from contracts.trainer import TrainingResumed
from runtime.views.formatting import figures, last_loss, number, short, size
from runtime.views.sentences import plain, sentence, told
from runtime.views.view import event_of
from tests.contracts.told import line

OURS = events()
GOLDENS = Path(__file__).parents[2] / "contracts" / "goldens"


@pytest.mark.parametrize("name", OURS)
def test_every_event_is_told_in_a_sentence_of_its_own(name: str):
    for body in (GOLDENS / f"{name}.jsonl").read_bytes().splitlines():
        _, event = read(body)
        assert isinstance(event, OURS[name])
        said = sentence(event)
        assert said
        assert not said.startswith(name), f"{name} has no sentence: says= in its class, or runtime/views/sentences.py"


def test_a_stranger_s_event_is_named_and_its_figures_are_shown():
    body = b'{"data":{"watt_hours":0.1,"deep":{"not":"shown"}}}'
    assert sentence(Unknown(name="footprint.estimated", body=body)) == "footprint.estimated watt_hours=0.1"


def test_a_guests_own_class_is_told_as_it_says_and_its_text_is_no_form():
    class Weighed(Event, wire="parcel.weighed", says="{who} weighs {kilograms:.1f} kg"):
        who: str
        kilograms: float

    try:
        assert sentence(Weighed(who="{kilograms.__class__}", kilograms=2)) == "{kilograms.__class__} weighs 2.0 kg"
    finally:
        del SPOKEN["parcel.weighed"]


def test_what_a_lane_has_no_say_in_is_named_and_not_believed():
    heard = line(TrainingResumed(segment=1, step=3), "guest_x") | {"understood": False}
    assert told(heard).endswith(" guest_x: training.resumed segment=1, step=3")


def test_a_line_that_another_version_of_this_software_made_is_still_told():
    newer = line(TrainingResumed(segment=1, step=3))
    newer["data"] |= {"mood": "good"}
    assert told(newer).endswith(" trainer: training.resumed segment=1, step=3, mood=good")
    assert isinstance(event_of(newer), Unknown)


def test_a_stranger_does_not_steer_the_terminal():
    odd = Unknown(name="odd.said", body=b'{"data":{"a":"\\u001b[2Jgone\\r"}}')
    said = plain("\x1b[31m-01-02T\x1b[5m:00", "guest_x", odd) + sentence(odd)
    assert "gone" in said
    assert "\x1b" not in said
    assert "\r" not in said


def test_an_event_without_an_object_is_still_told():
    assert sentence(Unknown(name="odd.said", body=b'{"data":[1,2]}')) == "odd.said"


def test_a_plain_line_says_when_and_who():
    resumed = line(TrainingResumed(segment=1, step=50)) | {"time": "2026-01-02T03:04:05.000000Z"}
    assert told(resumed) == "03:04:05 trainer: resumed at step 50"


def test_figures_are_read_from_exact_text_and_from_numbers():
    assert number("0x1.8p+0") == number(1.5) == 1.5
    assert math.isnan(number("nan"))
    assert short("0x1.5555555555555p-2") == "0.3333"
    assert figures({"val_loss": "0x1p-1", "rows": 3}) == "val_loss=0.5 rows=3"


def test_the_last_loss_of_a_window_is_its_last_float():
    assert last_loss("AACAPwAAAEA=") == 2.0
    assert last_loss("") is None


def test_sizes_have_units():
    assert [size(n) for n in (0, 999, 1500, 2_000_000, 3e12)] == ["0 B", "999 B", "1.5 kB", "2.0 MB", "3.0 TB"]


def test_the_death_of_a_process_names_its_signal_also_where_the_message_did_not():
    ended = ChildEnded(purpose="train", code=None, signal=11, max_rss_bytes=1, message="the child (pid 5) ended")
    assert sentence(ended) == "the train process ended by SIGSEGV without its answer: the child (pid 5) ended"
    crashed = "the child (pid 5) crashed with SIGSEGV;\n  its memory peaked at 12 MiB"
    assert sentence(ended.model_copy(update={"message": crashed})).endswith(
        "ended without its answer: the child (pid 5) crashed with SIGSEGV; its memory peaked at 12 MiB"
    )
    assert "signal 99" in sentence(ended.model_copy(update={"signal": 99}))


@pytest.mark.parametrize(
    ("resource", "value", "threshold", "said"),
    [
        ("disk", 419_100_000.0, 1_074_000_000.0, "warning: free disk space at 419.1 MB, below 1.1 GB. Free some."),
        ("store", 9e8, 8e8, "warning: store at 900.0 MB, above 800.0 MB. Free some."),
        ("cpu", 85.64, 60.0, "warning: cpu at 85.64 %, above 60 %. Free some."),
        ("gpu_temperature", 93.0, 84.0, "warning: GPU temperature at 93 °C, above 84 °C. Free some."),
    ],
)
def test_an_alert_has_units_and_says_on_which_side_of_its_threshold_a_value_is(
    resource: Any, value: float, threshold: float, said: str
):
    alert = ResourcesAlerted(resource=resource, level="warning", value=value, threshold=threshold, advice="Free some.")
    assert sentence(alert) == said


def test_epochs_that_were_over_before_a_sample_say_nothing_of_the_session_s_use():
    zeros: dict[str, Any] = dict.fromkeys(ResourcesMeasured.model_fields, 0) | {"epoch": 3, "epochs": 3}
    some = ResourcesMeasured.model_validate(zeros | {"seconds": 0.25, "gpu_percent": None, "joules": None})
    assert sentence(some) == (
        "epochs 1..3 in 1 s: the machine at 0 % CPU, this session over before a sample was taken of it"
    )
    more = some.model_copy(update={"session_memory_bytes": 1 << 20, "session_cpu_percent": 93.0})
    assert sentence(more).endswith("this session at 93 % of a core and 1.0 MB")
