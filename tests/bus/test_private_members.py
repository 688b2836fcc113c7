"""Every private member of nats-py that `bus/jetstream.py` uses is there, and takes what it is given."""

from __future__ import annotations

import ast
import inspect
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from bus import jetstream

ROOT = Path(jetstream.__file__).parent.parent
CLASSES = {node.name: node for node in ast.parse(inspect.getsource(jetstream)).body if isinstance(node, ast.ClassDef)}
OURS = {"_handlers", "_write_pending", "_rest"}
"""Private members that are our own."""
OVERRIDDEN = (
    (jetstream._Transport, TcpTransport, "read"),
    (jetstream._Parser, Parser, "parse"),
    (jetstream._Parser, Parser, "reset"),
    (jetstream._Client, Client, "_connect_to_server"),
    (jetstream._Client, Client, "_read_loop"),
    (jetstream._Client, Client, "_remove_sub"),
)


def private_members(name: str, owner: str = "self") -> Iterator[str]:
    """Private attributes that a class of ours takes from `owner`."""
    for node in ast.walk(CLASSES[name]):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            of = node.value
            if (isinstance(of, ast.Name) and of.id == owner) or (owner == "self" and isinstance(of, ast.Call)):
                yield node.attr


async def test_a_client_has_every_private_member_that_ours_uses() -> None:
    used = {*private_members("_Client"), *private_members("_Parser")} - OURS
    assert {"_transport", "_pending", "_send_ping", "_process_op_err"} <= used
    client = Client()
    assert sorted(name for name in used if not hasattr(client, name)) == []


def test_a_subscription_has_a_number() -> None:
    assert set(private_members("_Client", "subscription")) == {"_id"}
    assert "self._id" in inspect.getsource(Subscription.__init__)


@pytest.mark.parametrize(("ours", "theirs", "name"), OVERRIDDEN)
def test_what_ours_overrides_takes_the_same_arguments(ours: type, theirs: type, name: str) -> None:
    mine, original = (list(inspect.signature(getattr(of, name)).parameters) for of in (ours, theirs))
    assert mine == original


def test_every_override_of_a_private_method_is_checked() -> None:
    for name in ("_Transport", "_Parser", "_Client"):
        defined = {part.name for part in CLASSES[name].body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
        (base,) = getattr(jetstream, name).__bases__
        overridden = {part for part in defined if hasattr(base, part) and part != "__init__"}
        assert overridden == {part for ours, _, part in OVERRIDDEN if ours.__name__ == name}


def test_the_minor_version_that_has_them_is_required() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    major, minor, *_ = version("nats-py").split(".")
    assert f"nats-py>={major}.{minor},<{major}.{int(minor) + 1}" in wanted
