"""The reference is made from the code: its pages are those that `python docs/generate.py` writes, and no others."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "docs" / "reference"


def generator() -> ModuleType:
    found = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


GENERATOR = generator()


@pytest.mark.parametrize("name", sorted(GENERATOR.PAGES))
def test_a_page_of_the_reference_is_what_the_code_says(name: str) -> None:
    written = (PLACE / name).read_text(encoding="utf-8")
    assert written == GENERATOR.page(name), "the code has changed: python docs/generate.py"


def test_every_page_of_the_reference_is_made_and_named_in_the_index() -> None:
    assert {path.name for path in PLACE.iterdir()} == set(GENERATOR.PAGES)
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [name for name in GENERATOR.PAGES if f"reference/{name}" not in index] == []
