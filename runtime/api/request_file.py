"""Requests as files: YAML, TOML or JSON read into plain data, which `contracts.request` judges, and written as YAML."""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from contracts.errors import InvalidInput, NotFound
from runtime.views.formatting import one_line

LIMIT = 1 << 20
NODES = 100_000
"""More values than any request holds; anchors could multiply a small file into far more."""

PATHS = (("data", "path"), ("model", "init"))
"""Where a request names files; a relative one is meant relative to the request's own folder."""

STDIN = "-"


def read(name: str) -> dict[str, Any]:
    """The mapping in the file (or on stdin, for `-`), with the paths in it made absolute."""
    text, folder = _text(name)
    raw = parse(text, name, Path(name).suffix.lower() if name != STDIN else "")
    if not isinstance(raw, Mapping):
        raise InvalidInput(f"{name} holds {type(raw).__name__}, not sections.", cure="See: swarm init", path=name)
    return absolute(dict(raw), folder)


def read_resolved(name: str, overrides: tuple[str, ...], request_id: str | None = None) -> dict[str, Any]:
    """The request in the file with every default written out; `InvalidRequest` lists all that is wrong with it."""
    from contracts.request import read_request

    raw = read(name) | ({"request_id": request_id} if request_id is not None else {})
    resolved = read_request(raw, overrides=overrides).resolved()
    # The file's own paths are absolute by now; one given by --set is meant from where the person stands.
    return absolute(resolved, Path.cwd())


def resolve(request: Mapping[str, Any] | str | Path, request_id: str | None = None) -> tuple[dict[str, Any], Path]:
    """A request with every default, given as a mapping or as a file's name, and the folder in which it names files."""
    from contracts.request import read_request

    if isinstance(request, str | Path):
        return read_resolved(str(request), (), request_id), folder(str(request))
    about = {"request_id": request_id} if request_id is not None else {}
    return absolute(read_request(dict(request) | about).resolved(), Path.cwd()), Path.cwd()


def read_search(name: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The search in the file with defaults written out; its `base` may be a request or the name of a request's file."""
    from contracts.request import search

    raw = read(name)
    base, place = raw.get("base"), Path(name).parent.absolute() if name != STDIN else Path.cwd()
    if isinstance(base, str):
        raw["base"] = read(str(place / base))
    elif isinstance(base, dict):
        raw["base"] = absolute(base, place)
    return search.read_search(raw, overrides=overrides).resolved()


def folder(name: str) -> Path:
    """The folder in which a request lies; the owner who runs it there lets it name files in it."""
    return Path.cwd() if name == STDIN else Path(name).parent.resolve()


def parse(text: str, name: str, suffix: str) -> Any:
    """The text parsed as plain data, by the format that its file name says."""
    if suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"{name}: {error}.", cure="Mend the TOML there.", path=name) from None
    if suffix == ".json":
        return _json(text, name)
    if suffix in (".yaml", ".yml") or name == STDIN:
        # JSON is YAML but for tabs and a few escapes, so stdin needs no option that names the format.
        return _json(text, name) if text.lstrip().startswith("{") and name == STDIN else _yaml(text, name)
    message = f"{name} is neither .yaml, .toml nor .json."
    raise InvalidInput(message, cure="Rename it, or pipe it in with - as its name.", path=name)


def absolute(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The request with its files named from the root, because the swarm may run in another folder."""
    for section, key in PATHS:
        inner = raw.get(section)
        if isinstance(inner, Mapping) and isinstance(inner.get(key), str) and inner[key]:
            raw[section] = {**inner, key: str((folder / Path(inner[key]).expanduser()).resolve())}
    return raw


def _text(name: str) -> tuple[str, Path]:
    if name == STDIN:
        return _decoded(sys.stdin.buffer.read(LIMIT + 1), "stdin"), Path.cwd()
    path = Path(name)
    try:
        with path.open("rb") as file:
            return _decoded(file.read(LIMIT + 1), name), path.parent.absolute()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no file {name!r}.", cure="Write one: swarm init", path=name) from None
    except OSError as error:
        message = f"{name!r} cannot be read: {error.strerror}."
        raise InvalidInput(message, cure="Name a readable file.", path=name) from None


def _decoded(raw: bytes, name: str) -> str:
    if len(raw) > LIMIT:
        raise InvalidInput(f"{name} is larger than {LIMIT} bytes.", cure="A request is small; its data is elsewhere.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8 text: {error.reason} at byte {error.start}."
        raise InvalidInput(message, cure="Save it as UTF-8.", path=name) from None


def _json(text: str, name: str) -> Any:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        message = f"{name}:{error.lineno}:{error.colno}: {error.msg}."
        raise InvalidInput(message, cure="Mend the JSON there.", path=name) from None
    import json

    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in pairs:
            if key in mapping:
                raise InvalidInput(f"{name}: the key {key!r} is given twice.", cure="Remove one of them.", path=key)
            mapping[key] = value
        return mapping

    # The second reader sees keys that are given twice; the first has already refused NaN and bad escapes.
    return json.loads(text, object_pairs_hook=refuse_twice)


def _yaml(text: str, name: str) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise InvalidInput(f"{name} is empty.", cure="Write one: swarm init", path=name)
        _refuse_anchors(node, name)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        message = f"{where}: {error.problem or error.context}."
        raise InvalidInput(message, cure="Mend the YAML there.", path=name) from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"{name}: {error}.", cure="Mend the YAML there.", path=name) from None
    except RecursionError:
        raise InvalidInput(f"{name} is nested too deeply.", cure="A request has few levels.", path=name) from None


def _refuse_anchors(root: yaml.Node, name: str) -> None:
    """Refuse a key given twice, and what anchors would blow up or turn into a circle."""
    sizes: dict[int, int] = {}

    def weight(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = NODES  # stands until the node is weighed: an anchor inside itself is too heavy
            if isinstance(node, yaml.MappingNode):
                _refuse_twice(node)
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
            sizes[id(node)] = 1 + sum(map(weight, children))
        return sizes[id(node)]

    if weight(root) >= NODES:
        raise InvalidInput(f"{name} holds more than {NODES} values.", cure="Use fewer anchors.", path=name)


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                twice = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
            seen.add(key.value)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 in what it reads plainly: `no` is text, `1e-4` a number, a date text, and so is `010`."""


_FLOAT = (
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads as the same value: text that it would take for something else is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        """Equal values are written out: a request has no anchors."""
        return True


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def written(request: Mapping[str, Any], comments: Iterable[str] = ()) -> str:
    """A request as YAML that `read` gives back, below comments of one line each, whoever wrote their text."""
    head = "".join(f"# {one_line(comment)}\n" for comment in comments)
    return head + yaml.dump(dict(request), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
