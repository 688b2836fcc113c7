"""A request is read whole or answered with everything that is wrong with it."""

from __future__ import annotations

import copy
from pathlib import Path

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidRequest
from contracts.request import MODES, Request, read_request

SMALL = {"data": {"source": "digits"}, "model": {"architecture": "mlp"}}
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"


def problems(raw, **more):
    with pytest.raises(InvalidRequest) as caught:
        read_request(raw, **more)
    return {problem.path: problem for problem in caught.value.problems}


def test_two_sections_are_enough():
    request = read_request(SMALL)
    assert (request.training.epochs, request.training.batch_size, request.reproducibility.seed) == (20, 64, 42)


def test_the_example_is_a_request():
    request = read_request(yaml.safe_load(EXAMPLE.read_text()))
    assert request.name == "digits-baseline"
    assert request.optimizer.learning_rate == 1e-3


def test_the_resolved_form_is_json_and_reads_back_as_the_same_request():
    request = read_request(yaml.safe_load(EXAMPLE.read_text()))
    assert read_request(orjson.dumps(request.resolved())) == request
    assert request.resolved()["training"]["threads"] == "auto"


@pytest.mark.parametrize(("mode", "epochs"), [("baseline", 20), ("optimization", 50), ("production", 100)])
def test_a_mode_sets_what_the_request_leaves_open(mode, epochs):
    assert read_request({**SMALL, "mode": mode}).training.epochs == epochs
    assert read_request({**SMALL, "mode": mode, "training": {"epochs": 3}}).training.epochs == 3


def test_production_also_judges_the_test_set_unless_told_not_to():
    assert read_request({**SMALL, "mode": "production"}).validation.test_set
    assert not read_request({**SMALL, "mode": "production", "validation": {"test_set": False}}).validation.test_set


def test_every_mode_names_existing_fields():
    for defaults in MODES.values():
        for section, fields in defaults.items():
            assert set(fields) <= set(Request.model_fields[section].annotation.model_fields)


def test_all_problems_come_in_one_answer():
    found = problems(
        {
            "data": {"source": "digitz"},
            "model": {"architecture": "mlp", "hidden": [256, -1], "dropuot": 0.1},
            "training": {"epochs": 0, "batch_size": "many", "precision": "fp16", "device": "cpu"},
            "traning": {},
        }
    )
    assert set(found) == {
        "data.source",
        "model.hidden.1",
        "model.dropuot",
        "training.epochs",
        "training.batch_size",
        "traning",
    }
    assert found["traning"].cure == "Did you mean 'training'?"
    assert found["model.dropuot"].cure == "Did you mean 'dropout'?"
    assert found["data.source"].cure == "Did you mean 'digits'?"


def test_contradictions_between_sound_sections_are_named_beside_broken_ones():
    found = problems(
        {
            "data": {"source": "diabetes"},
            "model": {"architecture": "cnn"},
            "loss": {"type": "cross_entropy"},
            "optimizer": {"type": "sgd", "learning_rate": -1},
            "training": {"precision": "fp16", "device": "cpu"},
        }
    )
    assert set(found) == {"optimizer.learning_rate", "model.architecture", "loss.type", "training.precision"}
    assert "bf16" in found["training.precision"].cure


def test_every_problem_has_a_cure():
    found = problems(
        {
            "data": {"source": "blobs", "rows": 2, "classes": "x", "split": {"train": 0.5}},
            "model": [],
            "loss": {"type": "mse", "delta": 1},
            "optimizer": {},
            "schedule": {"type": "step"},
            "training": {"grad_clip": float("nan"), "threads": "all", "epochs": True},
            "early_stopping": {"metric": "accuracy"},
            "validation": {"metrics": []},
            "reproducibility": None,
            "export": {"formats": ["onx"]},
        }
    )
    assert len(found) >= 13
    assert all(problem.cure and problem.message for problem in found.values()), found
    assert found["early_stopping.metric"].cure == "Write 'val_accuracy'."
    assert found["schedule.every_steps"].message == "is required"


@pytest.mark.parametrize(("text", "number"), [("1e-4", 1e-4), ("0.5", 0.5), (1, 1.0)])
def test_numbers_written_as_text_are_numbers(text, number):
    assert (
        read_request({**SMALL, "optimizer": {"type": "adamw", "learning_rate": text}}).optimizer.learning_rate == number
    )
    assert read_request({**SMALL, "training": {"epochs": "2e1", "batch_size": "32"}}).training.epochs == 20


@pytest.mark.parametrize("value", ["nan", "inf", float("nan"), float("inf"), True, None, [], {}, "fast"])
def test_what_is_not_a_finite_number_is_refused(value):
    assert "optimizer.learning_rate" in problems({**SMALL, "optimizer": {"type": "adamw", "learning_rate": value}})


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'{"data": NaN}', b"{", "text", b"\xff\xfe", b'"x"', b"9" * (2 << 20)]
)
def test_what_is_no_json_object_is_refused(raw):
    problems(raw)


def test_keys_that_are_not_text_are_refused():
    problems({**SMALL, 3: 4})


def test_overrides_are_json_or_text_and_reach_into_lists():
    overrides = ["model.hidden.0=8", "model.dropout=0.5", "name=mine", "training.grad_clip=null", "data.split.seed=7"]
    given_request = {**SMALL, "model": {"architecture": "mlp", "hidden": [1, 2]}}
    before = copy.deepcopy(given_request)
    request = read_request(given_request, overrides=overrides)
    assert (request.model.hidden, request.model.dropout, request.name) == ((8, 2), 0.5, "mine")
    assert (request.training.grad_clip, request.data.split.seed) == (None, 7)
    assert given_request == before


@pytest.mark.parametrize("override", ["epochs", "=3", "training..epochs=3", ".a=1"])
def test_an_override_that_cannot_be_meant_is_refused(override):
    assert "override" in problems(SMALL, overrides=[override])[""].message


def test_an_override_of_an_unknown_key_is_answered_like_any_other():
    assert problems(SMALL, overrides=["training.epoch=3"])["training.epoch"].cure == "Did you mean 'epochs'?"


def test_a_request_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        read_request(SMALL).training.epochs = 3  # type: ignore[misc]


def test_a_workload_brings_its_own_loss_and_metrics():
    raw = {**SMALL, "model": {"architecture": "workload", "workload": "mine", "options": {"width": 3}}}
    request = read_request({**raw, "early_stopping": {"metric": "val_agreement"}})
    assert request.model.options == {"width": 3}
    assert "loss.type" in problems({**raw, "loss": {"type": "mse"}})


def test_a_metric_must_judge_what_the_data_is():
    found = problems({**SMALL, "validation": {"metrics": ["rmse"]}, "early_stopping": {"metric": "val_acuracy"}})
    assert found["validation.metrics.0"].cure == "Choose from accuracy, f1_macro."
    assert found["early_stopping.metric"].cure == "Did you mean 'val_accuracy'?"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
sections = st.sampled_from(sorted(Request.model_fields))


def answer(raw):
    """The request, or the problems; anything else that is raised is a defect."""
    try:
        return read_request(raw)
    except InvalidRequest as error:
        return error.problems


@given(st.dictionaries(sections, json_values, max_size=6))
def test_no_data_makes_the_reader_raise_anything_else(raw):
    assert answer({**SMALL, **raw})


@given(st.sampled_from(["data", "model", "loss", "optimizer", "schedule", "sampler"]), st.text(max_size=6), json_values)
def test_no_field_makes_the_reader_raise_anything_else(section, key, value):
    tags = {"data": "source", "model": "architecture"}
    choices = {"data": "blobs", "model": "mlp", "loss": "huber", "optimizer": "sgd", "schedule": "step"}
    choices["sampler"] = "weighted"
    assert answer({**SMALL, section: {tags.get(section, "type"): choices[section], key: value}})


@given(json_values)
def test_no_list_of_filters_or_phases_makes_the_reader_raise_anything_else(value):
    for given_value in (value, [value], [{"type": "clip_value", "limit": value}]):
        assert answer({**SMALL, "gradients": given_value})
        assert answer({**SMALL, "schedule": {"type": "composite", "phases": given_value}})
        assert answer({**SMALL, "loss": {"type": "multi_task", "terms": given_value}})


def test_what_is_wrong_in_a_list_of_filters_is_named_by_its_place():
    found = problems({**SMALL, "gradients": [{"type": "centralise"}, {"type": "centralize"}, {"type": "clip_value"}]})
    assert found["gradients.1.type"].cure == "Did you mean 'centralise'?"
    assert found["gradients.2.limit"].message == "is required"
    assert "a list" in problems({**SMALL, "gradients": {"type": "centralise"}})["gradients"].cure


@pytest.mark.parametrize(
    ("override", "section", "value"),
    [
        ("optimizer.learning_rate=0.02", "optimizer", {"type": "adamw", "learning_rate": 0.02}),
        ("schedule.warmup_steps=5", "schedule", {"type": "constant", "warmup_steps": 5}),
        ('schedule={"type": "composite", "phases": [{"schedule": {"warmup_steps": 5}}]}', "schedule", {}),
        ("optimizer={}", "optimizer", {"type": "adamw", "learning_rate": 0.001}),
        ("sampler={}", "sampler", {"type": "uniform"}),
        ("loss={}", "loss", {"type": "auto"}),
    ],
)
def test_a_section_that_has_a_default_kind_need_not_name_it(override, section, value):
    found = read_request(SMALL, overrides=[override])
    assert found.resolved()[section].items() >= value.items()
    assert read_request(found.resolved()) == found


def test_a_list_or_a_mapping_in_the_manner_of_yaml_is_told_how_json_has_it():
    found = problems(SMALL, overrides=["export.formats=[onnx, 'pt2', 3]", "optimizer={type: sgd}"])
    assert found["export.formats"].message == "\"[onnx, 'pt2', 3]\" is text and not a list"
    assert found["export.formats"].cure == 'Write it as JSON, words in double quotes: ["onnx", "pt2", 3].'
    assert found["optimizer"].message == "'{type: sgd}' is text and not a mapping"
    assert problems(SMALL, overrides=["export.formats=onnx"])["export.formats"].cure == "Write a list."


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        ("optimizer.momentum=0.9", "optimizer.type", "is required"),
        ("schedule.every_steps=5", "schedule.type", "is required"),
        ("sampler.column=y", "sampler.type", "is required"),
        ("optimizer.learnin_rate=0.1", "optimizer.learnin_rate", "unknown key 'learnin_rate'"),
        ("optimizer.type=null", "optimizer.type", "None is not known"),
        ("optimizer=sgd", "optimizer", "'sgd' is not a mapping of keys to values"),
    ],
)
def test_a_key_of_another_kind_still_asks_for_the_kind_and_a_typo_for_the_key(override, path, says):
    assert problems(SMALL, overrides=[override])[path].message == says


def test_the_published_schema_does_not_ask_for_a_kind_that_has_a_default():
    defaults = [Request.model_fields[name].default for name in ("loss", "optimizer", "schedule", "sampler")]
    defined = Request.model_json_schema()["$defs"]
    assert not any(defined[type(one).__name__].get("required") for one in defaults)
