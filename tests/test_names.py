"""Whoever imports us learns at once that a package of ours is somebody else's here, and what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stigmergy

ROOT = Path(stigmergy.__file__).parents[1]


def imported(statement: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """A Python that finds modules in these folders, the first one first."""
    begin = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}; {statement}"
    return subprocess.run([sys.executable, "-P", "-c", begin], capture_output=True, text=True, check=False)


def test_everything_here_is_ours() -> None:
    assert stigmergy.foreign() == {}


@pytest.mark.parametrize("name", stigmergy.PACKAGES)
def test_a_package_of_ours_that_comes_from_elsewhere_is_told_with_the_cure(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("class Agent: ...\n")
    done = imported("import stigmergy", tmp_path, ROOT)
    assert done.returncode == 1
    assert f"the package {name!r} here is not Stigmergy's" in done.stderr
    assert "environment of its own" in done.stderr


def test_a_package_that_was_written_over_is_noticed(tmp_path: Path) -> None:
    for name in stigmergy.PACKAGES:
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / name / "__init__.py", tmp_path / name)
    shutil.copytree(ROOT / "stigmergy", tmp_path / "stigmergy")
    assert imported("import stigmergy", tmp_path).returncode == 0
    (tmp_path / "agents" / "__init__.py").write_text('"""The OpenAI Agents SDK."""\n')
    assert "'agents' here is not Stigmergy's" in imported("import stigmergy", tmp_path).stderr


def test_the_command_says_so_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    done = imported("sys.argv = ['swarm', 'sessions']; from runtime.cli.start import main; main()", tmp_path, ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the package 'agents' here is not Stigmergy's")
    assert "Traceback" not in done.stderr
