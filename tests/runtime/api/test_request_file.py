"""What a request file means, in each of the three formats, and how a bad one is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from contracts.errors import InvalidInput, NotFound
from contracts.request import read_request
from runtime.api import request_file

YAML = "data: {source: digits}\nmodel: {architecture: mlp, hidden: [8]}\noptimizer: {type: sgd, learning_rate: 1e-4}\n"
TOML = """\
data = {source = "digits"}
model = {architecture = "mlp", hidden = [8]}
[optimizer]
type = "sgd"
learning_rate = 1e-4
"""
JSON = """
{"data": {"source": "digits"}, "model": {"architecture": "mlp", "hidden": [8]},
 "optimizer": {"type": "sgd", "learning_rate": 1e-4}}
"""


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(("name", "text"), [("r.yaml", YAML), ("r.yml", YAML), ("r.toml", TOML), ("r.json", JSON)])
def test_all_formats_say_the_same(name: str, text: str, tmp_path: Path):
    raw = request_file.read(written(tmp_path, name, text))
    assert read_request(raw) == read_request(JSON)
    assert raw["optimizer"]["learning_rate"] == 0.0001


@pytest.mark.parametrize("text", [YAML, JSON])
def test_stdin_may_be_yaml_or_json(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read_request(request_file.read("-")) == read_request(JSON)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1.5", 1.5),
        ("-3", -3),
        ("0x10", "0x10"),
        ("010", "010"),
        ("1_000", 1000),
        ("12:30:00", "12:30:00"),
        ("2026-01-02", "2026-01-02"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        (".5", 0.5),
        ("'1e-4'", "1e-4"),
    ],
)
def test_plain_yaml_values_are_those_of_yaml_1_2(text: str, value: object):
    found = request_file.parse(f"key: {text}\n", "r.yaml", ".yaml")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.yaml", "a: 1\nb: 2\na: 3\n", "r.yaml:3:1: the key 'a' is given twice"),
        ("r.yaml", "a: {b: 1, b: 2}\n", "the key 'b' is given twice"),
        ("r.json", '{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("r.toml", "a = 1\na = 2\n", "Cannot overwrite a value"),
        ("r.yaml", "a: [1\n", "r.yaml:2:1"),
        ("r.json", '{"a": }', "r.json:1:7"),
        ("r.json", '{"a": NaN}', "r.json:1:7"),
        ("r.yaml", "", "is empty"),
        ("r.yaml", "- 1\n- 2\n", "holds list, not sections"),
        ("r.yaml", b"\xff\xfe\x00", "is not UTF-8"),
        ("r.yaml", "a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("r.yaml", "a: &a [*a]\n", "more than 100000 values"),
        ("r.yaml", "[" * 100_000, "nested too deeply"),
        ("r.txt", "a: 1", "neither .yaml, .toml nor .json"),
        ("r.yaml", b"#" * (request_file.LIMIT + 1), "is larger than"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(name: str, content: str | bytes, says: str, tmp_path: Path):
    with pytest.raises(InvalidInput) as refused:
        request_file.read(written(tmp_path, name, content))
    assert says in refused.value.message
    assert refused.value.cure


def test_anchors_cannot_make_a_small_file_huge(tmp_path: Path):
    rows = [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcde", "bcdef", strict=True)
    ]
    with pytest.raises(InvalidInput, match="more than 100000 values"):
        request_file.read(written(tmp_path, "r.yaml", "a: &a [1, 2]\n" + "\n".join(rows)))


def test_merge_keys_work_as_yaml_users_expect(tmp_path: Path):
    text = "base: &base {epochs: 3, batch_size: 8}\ntraining: {<<: *base, epochs: 5}\n"
    assert request_file.read(written(tmp_path, "r.yaml", text))["training"] == {"epochs": 5, "batch_size": 8}


def test_a_missing_file_is_not_found(tmp_path: Path):
    with pytest.raises(NotFound, match="there is no file"):
        request_file.read(str(tmp_path / "none.yaml"))


def test_a_folder_is_no_request(tmp_path: Path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        request_file.read(str(tmp_path))


def test_relative_data_is_meant_from_the_request_s_own_folder(tmp_path: Path):
    (tmp_path / "data").mkdir()
    raw = request_file.read(written(tmp_path, "r.yaml", "data: {source: csv, path: data/t.csv, target: y}\n"))
    assert raw["data"]["path"] == str(tmp_path / "data" / "t.csv")


def test_absolute_data_stays_where_it_is(tmp_path: Path):
    raw = request_file.read(written(tmp_path, "r.yaml", "data: {source: csv, path: /data/t.csv, target: y}\n"))
    assert raw["data"]["path"] == "/data/t.csv"
