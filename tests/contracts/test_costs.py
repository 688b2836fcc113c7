"""What each large number of a request costs: nothing, or so much that it is counted before it is taken.

A new option that may be large is put into one of the two tables, with the test that shows it counted, or the reason
why it need not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from contracts.request import Request
from tests.citations import Written

LARGE = 1000

_GENERATED = "test_more_rows_than_there_is_room_for_are_refused_before_the_first"
_MODEL = "test_what_does_not_fit_is_refused_with_figures_and_the_cure"
_ROWS = "test_rows_of_a_step_and_of_a_window_are_counted_before_they_are_taken"
_CHECKPOINTS = "test_checkpoints_that_are_kept_whatever_comes_are_counted_before_the_first"

COUNTED = {
    **dict.fromkeys(("Blobs.rows", "Blobs.features", "Blobs.classes", "Circles.rows"), _GENERATED),
    **dict.fromkeys(("Images.rows", "Images.height", "Images.width", "Tokens.rows", "Tokens.length"), _GENERATED),
    "ImageFolder.height": "test_images_are_counted_before_the_first_is_opened_and_each_before_it_is_unpacked",
    "ImageFolder.width": "test_images_are_counted_before_the_first_is_opened_and_each_before_it_is_unpacked",
    "Part.shape": "test_a_record_that_no_file_could_hold_is_refused",
    **dict.fromkeys(("Mlp.hidden", "Autoencoder.hidden", "Autoencoder.code", "Cnn.channels"), _MODEL),
    **dict.fromkeys(("ResNet.width", "ResNet.blocks", "Transformer.width", "Transformer.layers"), _MODEL),
    **dict.fromkeys(("Contrastive.width", "Triplet.width"), _MODEL),
    **dict.fromkeys(("Training.batch_size", "Training.accumulate"), _ROWS),
    "Training.threads": "test_a_training_begins_with_no_more_threads_than_are_of_use_here",
    **dict.fromkeys(("Checkpoints.keep_last", "Checkpoints.keep_best"), _CHECKPOINTS),
}

_SEED = "a seed is one number"
_STEP = "a step is one number, and more of them take time alone"
_PLACE = "it is compared with, and nothing is made of it"

FREE = {
    **dict.fromkeys(("Blobs.seed", "Circles.seed", "Images.seed", "Tokens.seed", "Split.seed"), _SEED),
    **dict.fromkeys(("Synthetic.seed", "Reproducibility.seed"), _SEED),
    "Images.classes": "a pattern of 16 cells for each of 64 channels: 80 MB at the most",
    "Tokens.vocabulary": "two followers of each token: 16 MB at the most",
    "Split.folds": "rows are divided among them",
    "Split.fold": "one of the folds",
    **dict.fromkeys(("Needs.memory_bytes", "Needs.devices"), "compared with what trainers have, and never taken"),
    "Raw.header_bytes": "they are passed over",
    "ImageQuality.min_side": _PLACE,
    "Transformer.heads": "the width is divided among them",
    "Weighted.repeats": "rows are found by sums of them, never written out as often",
    **dict.fromkeys(("Shift.pixels", "Erase.pixels"), "an image has as many pixels as it has"),
    **dict.fromkeys(("EarlyStopping.patience", "Plateau.patience", "Plateau.rest", "Curriculum.patience"), _PLACE),
    **dict.fromkeys(("Training.epochs", "Validation.every_epochs", "Checkpoints.every_steps"), _STEP),
    **dict.fromkeys(("Limits.steps", "Limits.epochs"), "a budget only takes steps away"),
    **dict.fromkeys(("Cyclic.up_steps", "Cyclic.down_steps", "Step.every_steps", "Exponential.every_steps"), _STEP),
    **{
        f"{name}.warmup_steps": _STEP
        for name in ("Constant", "LinearDecay", "Cosine", "OneCycle", "Cyclic", "Step", "Exponential", "Plateau")
    },
    "Composite.warmup_steps": _STEP,
    "Checkpoints.anchors": "as many as there are checkpoints and as fit into the budget; see docs/guarantee.md",
    "Checkpoints.budget_bytes": "a limit of what is kept",
    "Training.world_size": "it is 1",
    "Training.recheck": "a window in so many is repeated: the more, the less",
    "Training.pauses": "64 at most; at each a process ends, and another one begins when somebody resumes",
}


def large(schema: Any) -> Iterator[str]:
    """Every option of whole numbers that may be large."""
    for section, described in schema["$defs"].items():
        for name, option in described.get("properties", {}).items():
            if any(is_large(one) for one in numbers(option)):
                yield f"{section}.{name}"


def numbers(option: Any) -> Iterator[Any]:
    """The descriptions of whole numbers in an option, alone, in lists and among alternatives."""
    if option.get("type") == "integer":
        yield option
    inside = [option["items"]] if isinstance(option.get("items"), dict) else []
    for inner in (*option.get("anyOf", ()), *option.get("oneOf", ()), *inside):
        yield from numbers(inner)


def is_large(number: Any) -> bool:
    return bool(number.get("maximum", number.get("exclusiveMaximum", float("inf"))) >= LARGE)


def test_every_large_number_of_a_request_is_counted_or_costs_nothing() -> None:
    found = set(large(TypeAdapter(Request).json_schema()))
    assert not COUNTED.keys() & FREE.keys()
    assert found == COUNTED.keys() | FREE.keys()


def test_what_is_counted_has_a_test_that_shows_it() -> None:
    files = Path(__file__).parents[1].rglob("test_*.py")
    written = Written.of({str(file): file.read_text(encoding="utf-8") for file in files})
    assert set(COUNTED.values()) <= written.functions.keys()
