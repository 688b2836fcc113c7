"""Every command of the README is run, in its order, in a folder that has what a clone has."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MINUTES = 8


def commands() -> list[str]:
    """The lines that begin with `$` in the README's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def swarm(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[0] == "swarm", command
    environment = os.environ | {"SWARM_HOME": str(place / ".swarm"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "runtime.cli.start", *words[1:]],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60)
def test_every_command_of_the_readme_works_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    found = commands()
    assert len(found) >= 15, "the README lost its commands"
    try:
        for command in found:
            done = swarm(command, tmp_path)
            assert done.returncode == 0, f"$ {command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    finally:
        assert swarm("swarm down", tmp_path).returncode == 0


def test_the_readme_names_the_two_commands_and_the_makefile_has_them() -> None:
    text, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-tools"):
        assert f"make {target}" in text
        assert f"\n{target}:" in makefile
