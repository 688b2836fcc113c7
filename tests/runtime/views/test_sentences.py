"""Every event that our roles can say has a sentence, made of what the event holds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from contracts.event import events
from runtime.views.formatting import figures, last_loss, number, short, size
from runtime.views.sentences import plain, sentence

OURS = events()


PLAIN = {"integer": 3, "number": 0.5, "boolean": True}
PACKED = "AACAPw=="


def example(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """Some data that fits a JSON Schema, as an event's data would."""
    if "$ref" in schema:
        return example(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        return example(choice, root)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("type") == "array":
        return [example(schema.get("items", {}), root)]
    if schema.get("type") == "object":
        return {name: example(one, root) for name, one in schema.get("properties", {}).items()}
    return PLAIN.get(schema.get("type", ""), "ab" * 32 if schema.get("pattern") else "0x1p-1")


@pytest.mark.parametrize("name", OURS)
def test_every_event_is_told_in_a_sentence_of_its_own(name: str):
    schema = OURS[name].model_json_schema()
    data = example(schema, schema) | ({"losses": PACKED} if name == "window.recorded" else {})
    told = sentence({"name": name, "data": data})
    assert told
    assert not told.startswith(name), f"{name} has no sentence in runtime/views/sentences.py"


def test_a_stranger_s_event_is_named_and_its_figures_are_shown():
    line = {"name": "footprint.estimated", "data": {"watt_hours": 0.1, "deep": {"not": "shown"}}}
    assert sentence(line) == "footprint.estimated watt_hours=0.1"


def test_what_a_lane_has_no_say_in_is_named_and_not_believed():
    line = {"name": "training.completed", "data": {"step": 3}, "understood": False}
    assert sentence(line) == "training.completed step=3"


def test_a_stranger_does_not_steer_the_terminal():
    line = {"name": "odd.said", "data": {"a": "\x1b[2Jgone\r"}, "lane": "guest_x", "time": "\x1b[31m-01-02T\x1b[5m:00"}
    assert "\x1b" not in plain(line) + sentence(line)
    assert "\r" not in plain(line) + sentence(line)


def test_an_event_without_an_object_is_still_told():
    assert sentence({"name": "odd.said", "data": [1, 2]}) == "odd.said"


def test_a_plain_line_says_when_and_who():
    line = {"name": "training.resumed", "data": {"step": 50}, "lane": "trainer", "time": "2026-01-02T03:04:05.000000Z"}
    assert plain(line) == "03:04:05 trainer: resumed at step 50"


def test_figures_are_read_from_exact_text_and_from_numbers():
    assert number("0x1.8p+0") == number(1.5) == 1.5
    assert math.isnan(number("nan"))
    assert short("0x1.5555555555555p-2") == "0.3333"
    assert figures({"val_loss": "0x1p-1", "rows": 3}) == "val_loss=0.5 rows=3"


def test_the_last_loss_of_a_window_is_its_last_float():
    assert last_loss({"losses": "AACAPwAAAEA="}) == 2.0
    assert last_loss({"losses": ""}) is None


def test_sizes_have_units():
    assert [size(n) for n in (0, 999, 1500, 2_000_000, 3e12)] == ["0 B", "999 B", "1.5 kB", "2.0 MB", "3.0 TB"]


def test_the_death_of_a_process_names_its_signal_also_where_the_message_did_not():
    data = {"purpose": "train", "code": None, "signal": 11, "max_rss_bytes": 1, "message": "the child (pid 5) ended"}
    told = "the train process ended by SIGSEGV without its answer: the child (pid 5) ended"
    assert sentence({"name": "child.ended", "data": data}) == told
    data["message"] = "the child (pid 5) crashed with SIGSEGV;\n  its memory peaked at 12 MiB"
    told = sentence({"name": "child.ended", "data": data})
    assert told.endswith(
        "ended without its answer: the child (pid 5) crashed with SIGSEGV; its memory peaked at 12 MiB"
    )
    assert "signal 99" in sentence({"name": "child.ended", "data": data | {"signal": 99}})


@pytest.mark.parametrize(
    ("resource", "value", "threshold", "told"),
    [
        ("disk", 419_100_000.0, 1_074_000_000.0, "warning: free disk space at 419.1 MB, below 1.1 GB. Free some."),
        ("store", 9e8, 8e8, "warning: store at 900.0 MB, above 800.0 MB. Free some."),
        ("cpu", 85.64, 60.0, "warning: cpu at 85.64 %, above 60 %. Free some."),
        ("gpu_temperature", 93.0, 84.0, "warning: GPU temperature at 93 °C, above 84 °C. Free some."),
    ],
)
def test_an_alert_has_units_and_says_on_which_side_of_its_threshold_a_value_is(
    resource: str, value: float, threshold: float, told: str
):
    data = {"resource": resource, "level": "warning", "value": value, "threshold": threshold, "advice": "Free some."}
    assert sentence({"name": "resources.alerted", "data": data}) == told
