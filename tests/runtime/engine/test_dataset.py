"""A dataset is its bytes: the same rows have the same root anywhere, and no changed byte goes unnoticed."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.errors import InvalidInput, NotFound, NotVerified
from runtime.engine.dataset import Dataset, Manifest, write
from runtime.engine.facts import Facts, describe


def small(offset=0.0):
    x = np.arange(24, dtype=np.float32).reshape(8, 3) + np.float32(offset)
    y = np.arange(8) % 2
    return {"train": {"x": x[:5], "y": y[:5]}, "val": {"x": x[5:7], "y": y[5:7]}, "test": {"x": x[7:], "y": y[7:]}}


def written(directory, splits=None):
    splits = splits or small()
    return write(directory, splits, describe(splits, "classification", labels=["no", "yes"]))


def test_the_same_rows_have_the_same_root_and_the_same_bytes_anywhere(tmp_path):
    one, other = written(tmp_path / "a"), written(tmp_path / "b" / "c")
    assert one.root == other.root
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b" / "c").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b/c" / name).read_bytes() for name in files)


def test_layout_in_memory_does_not_matter(tmp_path):
    splits = small()
    turned = {
        name: {"y": split["y"].astype(">i8"), "x": np.asfortranarray(split["x"])} for name, split in splits.items()
    }
    facts = describe(splits, "classification")
    assert write(tmp_path / "a", splits, facts).root == write(tmp_path / "b", turned, facts).root


def test_one_value_more_is_another_root(tmp_path):
    assert written(tmp_path / "a").root != written(tmp_path / "b", small(1.0)).root


def test_columns_come_back_as_they_were_and_cannot_be_written_through(tmp_path):
    written(tmp_path)
    dataset = Dataset.open(tmp_path)
    train = dataset.columns("train")
    assert train["x"].tolist() == small()["train"]["x"].tolist()
    train["x"][0] = 99
    assert dataset.columns("train")["x"][0].tolist() == [0, 1, 2]
    dataset.verify()


def test_any_flipped_byte_of_a_column_is_noticed(tmp_path):
    written(tmp_path)
    for path in sorted(tmp_path.glob("*.bin")):
        good = path.read_bytes()
        for at in (0, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises(NotVerified, match=path.name):
                Dataset.open(tmp_path)
            Dataset.open(tmp_path, verify=False)
        path.write_bytes(good[:-1])
        with pytest.raises(NotVerified):
            Dataset.open(tmp_path)
        path.write_bytes(good)
    Dataset.open(tmp_path)


def test_a_changed_manifest_is_noticed_even_without_reading_the_rows(tmp_path):
    written(tmp_path)
    manifest = tmp_path / "manifest.json"
    good = manifest.read_bytes()
    for bad in (good.replace(b'"yes"', b'"YES"'), good[:-2], b"{}", b"[]", good.replace(b'"<f4"', b'"<f8"')):
        manifest.write_bytes(bad)
        with pytest.raises(NotVerified):
            Dataset.open(tmp_path, verify=False)


def test_a_directory_without_a_manifest_is_no_dataset(tmp_path):
    with pytest.raises(NotFound):
        Dataset.open(tmp_path)


def test_a_split_that_is_not_there_is_named(tmp_path):
    written(tmp_path)
    with pytest.raises(NotFound, match="'holdout'"):
        Dataset.open(tmp_path).columns("holdout")


def test_objects_are_no_column(tmp_path):
    splits = {"train": {"x": np.array([{}, []], dtype=object)}}
    with pytest.raises(InvalidInput, match=r"train\.x"):
        write(tmp_path, splits, Facts("other", {"train": 2}, {}))


def test_an_empty_split_is_allowed(tmp_path):
    splits = small()
    splits["test"] = {name: column[:0] for name, column in splits["test"].items()}
    written(tmp_path, splits)
    assert Dataset.open(tmp_path).columns("test")["x"].shape == (0, 3)


def test_facts_come_from_the_training_split_alone():
    splits = small()
    facts = describe(splits, "classification", labels=["no", "yes"], features=["a", "b", "c"])
    assert facts.mean == tuple(splits["train"]["x"].astype(float).mean(0))
    assert facts.scale == pytest.approx(splits["train"]["x"].astype(float).std(0))
    assert (facts.classes, facts.shape, facts.rows["val"]) == (2, (3,), 2)
    assert Facts.from_json(facts.as_json()) == facts


def test_images_are_described_per_channel_and_constant_features_keep_their_scale():
    x = np.zeros((4, 2, 3, 3), np.float32)
    x[:, 1] = np.arange(4, dtype=np.float32)[:, None, None]
    splits = {"train": {"x": x, "y": np.array([0, 1, 2, 0])}}
    facts = describe(splits, "classification")
    assert facts.mean == (0.0, 1.5)
    assert facts.scale == pytest.approx((1.0, 1.25**0.5))
    assert facts.outputs == 3


def test_a_manifest_is_plain_data(tmp_path):
    manifest = written(tmp_path)
    assert Manifest.from_json(manifest.as_json()) == manifest
    assert dict(manifest.files())["train.x.bin"] == 60
