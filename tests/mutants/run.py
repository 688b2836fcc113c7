"""Plant bugs of one line, one by one, in a copy of the tree, and see the named test fail.

Run by `python -m tests.mutants.run`.

`mutants.json` holds for each its file, the whole line as it is and as it becomes, the test that must catch it and how
many seconds that takes where nothing else runs. With `--draw N --seed S` only N are tried, among those whose test takes
under ten seconds. The working tree is never touched.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutants.json")
BRIEF_SECONDS = 10.0
_LEFT_OUT = (".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__", ".swarm")


@dataclass(frozen=True)
class Mutant:
    """One planted bug, and the test that must notice it."""

    id: str
    path: str
    old: str
    new: str
    test: str
    seconds: float

    def planted(self, text: str) -> str:
        """The file with the bug in it; `ValueError` when the line is not there, or not once."""
        lines = text.splitlines(keepends=True)
        places = [at for at, line in enumerate(lines) if line.rstrip("\n") == self.old]
        if len(places) != 1:
            raise ValueError(f"{self.id}: {self.path} has {len(places)} lines {self.old!r}; write it as it is now")
        lines[places[0]] = self.new + "\n"
        return "".join(lines)


def mutants() -> list[Mutant]:
    """The committed table."""
    return [Mutant(**one) for one in json.loads(TABLE.read_text(encoding="utf-8"))]


def drawn(table: Sequence[Mutant], count: int, seed: str) -> list[Mutant]:
    """Some of those whose test is brief; the same for the same seed."""
    brief = [one for one in table if one.seconds < BRIEF_SECONDS]
    return random.Random(seed).sample(brief, min(count, len(brief)))


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the tree without what is built or kept beside it."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        copy = Path(place) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        yield copy


def verdict(copy: Path, mutant: Mutant) -> str:
    """`caught`, `survived`, or `does not apply` when the line is not there or the test could not be run."""
    file = copy / mutant.path
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(mutant.planted(text), encoding="utf-8")
        code = _tested(copy, mutant.test)
    except ValueError:
        return "does not apply"
    finally:
        file.write_text(text, encoding="utf-8")
    return {0: "survived", 1: "caught"}.get(code, "does not apply")


def _tested(copy: Path, test: str) -> int:
    # Without compiled modules: one of the same size, written in the same second, would pass for the mutated one.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=120", test]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False).returncode


def main() -> int:
    """Print a line for each, and the sum; 1 unless all were caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*", help="only these")
    parser.add_argument("--draw", type=int, help="so many, among those whose test is brief")
    parser.add_argument("--seed", default="0")
    given = parser.parse_args()
    table = [one for one in mutants() if not given.ids or one.id in given.ids]
    if unknown := set(given.ids) - {one.id for one in table}:
        parser.error(f"there is no mutant {', '.join(sorted(map(repr, unknown)))}")
    chosen = drawn(table, given.draw, given.seed) if given.draw else table
    with copied() as copy:
        found = {}
        for one in chosen:
            began = time.monotonic()
            found[one.id] = verdict(copy, one)
            print(f"{found[one.id]:<15} {time.monotonic() - began:5.1f} s  {one.id}", flush=True)
    caught = sum(one == "caught" for one in found.values())
    print(f"{caught} of {len(found)} caught")
    return 0 if caught == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
