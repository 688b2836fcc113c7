"""State goes to bytes and comes back as the same bits, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from contracts.errors import NotVerified
from runtime.engine import checkpoint, state
from runtime.engine.loop import Run
from tests.runtime.engine.plans import planned


@pytest.fixture
def run(images):
    run = Run.start(planned(images), images)
    run.advance()
    return run


def packed(run):
    return checkpoint.pack(checkpoint.seal(run.tensors(), run.step, run.aliases))


def test_what_is_packed_is_unpacked(run):
    found = checkpoint.unpack(packed(run))
    assert state.first_difference(found.tensors, run.tensors()) is None
    assert (found.step, found.weights_digest) == (10, run.weights_digest())


def test_unpacked_tensors_are_fresh_and_aligned(run):
    assert all(one.data_ptr() % 16 == 0 for one in checkpoint.unpack(packed(run)).tensors.values() if one.numel())


def test_the_same_state_is_the_same_bytes_in_any_process(run):
    data = packed(run)
    code = (
        "import sys; from runtime.engine import checkpoint;"
        "sys.stdout.buffer.write(checkpoint.pack(checkpoint.unpack(sys.stdin.buffer.read())))"
    )
    again = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True).stdout
    assert again == data


def test_any_flipped_byte_is_refused(run):
    data = packed(run)
    root = checkpoint.unpack(data).state_root
    for at in (*range(0, len(data), len(data) // 97), 3, 9, len(data) - 1):
        bad = bytearray(data)
        bad[at] ^= 0x10
        with pytest.raises(NotVerified):
            checkpoint.unpack(bytes(bad), state_root=root)


@pytest.mark.parametrize("bad", [b"", b"12345678", b"\x00" * 64, b"\xff" * 64])
def test_what_is_no_checkpoint_is_refused(bad):
    with pytest.raises(NotVerified):
        checkpoint.unpack(bad)


def test_a_truncated_checkpoint_is_refused(run):
    data = packed(run)
    for length in (len(data) - 1, len(data) // 2, 100):
        with pytest.raises(NotVerified):
            checkpoint.unpack(data[:length])


def test_another_state_than_the_log_names_is_refused(run):
    data = packed(run)
    with pytest.raises(NotVerified, match="root"):
        checkpoint.unpack(data, state_root="0" * 64)


def test_a_consistent_forgery_of_the_weights_digest_is_refused(run):
    tensors = run.tensors()
    about = {"step": 1, "state_root": state.root(tensors), "weights_digest": "0" * 64, "aliases": {}}
    with pytest.raises(NotVerified, match="weights"):
        checkpoint.unpack(safetensors.torch.save(tensors, {checkpoint.KEY: json.dumps(about)}))


def test_a_checkpoint_of_another_model_is_refused(run, images):
    other = planned(images, model={"architecture": "mlp", "hidden": [17], "dropout": 0.2})
    with pytest.raises(NotVerified, match="shape"):
        Run.resume(other, images, run.tensors(), 10)
    deeper = planned(images, model={"architecture": "mlp", "hidden": [16, 16]})
    with pytest.raises(NotVerified, match="another model"):
        Run.resume(deeper, images, run.tensors(), 10)


def test_a_loaded_model_answers_as_the_trained_one_did(run, images):
    model = checkpoint.load_model(run.plan.request, images.facts, checkpoint.unpack(packed(run)).tensors)
    assert not model.training
    assert state.root(state.weights(model)) == run.weights_digest()


def test_roots_see_names_types_shapes_and_bits():
    one = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.zeros(2, 3)}
    assert state.root(one) == state.root(same)
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3).neg(), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3)},
    ]
    assert state.root(one) not in {state.root(other) for other in others}
    assert state.first_difference(one, others[1]) == "b"


def test_digests_do_not_depend_on_strides_and_take_every_dtype():
    square = torch.arange(6.0).reshape(2, 3)
    assert state.root({"a": square.t().contiguous().t()}) == state.root({"a": square})
    for dtype in (torch.bfloat16, torch.float16, torch.bool, torch.int64, torch.float64):
        assert len(state.root({"a": torch.zeros(3, dtype=dtype), "e": torch.zeros(0, dtype=dtype)})) == 64
    assert state.root({"a": torch.tensor(1.0)}) != state.root({"a": torch.tensor([1.0])})


def test_tied_tensors_are_kept_once_with_their_other_names():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model.register_buffer("hidden", torch.zeros(1), persistent=False)
    assert set(state.weights(model)) == {"model.0.weight", "model.0.bias", "model.1.bias", "model.hidden"}
    assert state.aliases(model) == {"model.1.weight": "model.0.weight"}


def test_state_that_is_not_finite_is_recognised():
    assert state.finite({"a": torch.ones(3), "n": torch.tensor([2**40])})
    assert not state.finite({"a": torch.tensor([1.0, float("nan")])})
    assert not state.finite({"a": torch.tensor(float("inf"))})
