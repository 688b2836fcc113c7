"""The page on the guarantee names tests and events that exist, and tests that would notice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contracts.event import SPOKEN
from runtime.bundle import bundle_members
from tests.citations import Written

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "guarantee.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`(test_\w+)`", PAGE))

NEED_ROOT = {"test_a_checkpoint_for_which_there_is_no_room_is_waited_for_and_the_bits_are_the_same"}
"""A small disk is mounted for it, which root alone can do; the checks before a change lands are run by root."""


@pytest.fixture(scope="module")
def written() -> Written:
    return Written.of({str(path): path.read_text(encoding="utf-8") for path in HERE.rglob("*.py")})


def test_every_test_that_the_page_names_exists(written: Written):
    assert len(NAMED) > 20
    assert NAMED - written.functions.keys() == set()


def test_no_test_that_the_page_names_is_empty_or_may_be_skipped(written: Written):
    assert [name for name in sorted(NAMED) if not written.asserts(name)] == []
    assert {name for name in NAMED if written.may_skip(name)} == NEED_ROOT


def test_a_test_that_asserts_nothing_or_may_be_skipped_is_found():
    text = """
import sys, pytest
linux = pytest.mark.skipif(sys.platform != "linux", reason="")
@pytest.fixture
def disk(): pytest.skip("none")
def checked(x): assert x
def test_plain(): assert 1 + 1 == 2
def test_by_another(): checked(1)
def test_by_raising():
    with pytest.raises(ValueError): int("x")
def test_empty(): checks = 1
def test_constant(): assert True
@linux
def test_marked(): assert sys.platform
@pytest.mark.skip
def test_skipped(): assert 1 + 1
def test_by_fixture(disk): assert disk
async def test_in_itself():
    pytest.skip("no")
    assert 1 + 1
"""
    found = Written.of({"x.py": text})
    tests = [name for name in found.functions if name.startswith("test_")]
    assert [name for name in tests if not found.asserts(name)] == ["test_empty", "test_constant"]
    assert [name for name in tests if found.may_skip(name)] == [
        "test_marked",
        "test_skipped",
        "test_by_fixture",
        "test_in_itself",
    ]
    assert Written.of({"y.py": "pytestmark = pytest.mark.skip\ndef test_x(): assert y"}).may_skip("test_x")


def test_every_event_that_the_page_names_is_said_by_somebody():
    assert bundle_members.event_schemas()
    named = set(re.findall(r"`([a-z_]+\.[a-z]+)`", PAGE)) - {"verify_bundle.py", "root.key"}
    assert len(named) > 15
    assert named - SPOKEN.keys() == set()
