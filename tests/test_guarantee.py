"""The page on the guarantee names tests and events that exist."""

from __future__ import annotations

import re
from pathlib import Path

from contracts.event import SPOKEN
from runtime.bundle import furniture

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "guarantee.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists():
    written = {name for path in HERE.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    shared = set(re.findall(r"def (test_\w+)", (HERE / "bus" / "conformance.py").read_text()))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 20
    assert named - written - shared == set()


def test_every_event_that_the_page_names_is_said_by_somebody():
    assert furniture.schemas()
    named = set(re.findall(r"`([a-z_]+\.[a-z]+)`", PAGE)) - {"verify_bundle.py", "root.key"}
    assert len(named) > 15
    assert named - SPOKEN.keys() == set()
