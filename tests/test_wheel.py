"""What is installed elsewhere: the wheel holds every file of the product, and works where no source tree is seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.runtime.recorded_home import RecordedHome

ROOT = Path(__file__).parents[1]
PACKAGES = ("stigmergy", "contracts", "bus", "runtime", "agents")
LIBRARIES = sysconfig.get_paths()["purelib"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel of this tree installs, and nothing else."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    shutil.rmtree(source)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "bare")
    return place / "bare"


def foreign_python(installed: Path, code: str) -> str:
    """What a Python says that sees the installed files and the libraries, but not this tree."""
    # Without `site` no .pth file leads back here.
    begin = f"import sys; sys.path += [{str(installed)!r}, {LIBRARIES!r}]; "
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", begin + code], cwd=installed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_product_and_nothing_else(installed: Path) -> None:
    ours = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {name for name in found if ".dist-info/" not in name} == ours
    assert {f"{name}/py.typed" for name in PACKAGES} <= ours


def test_the_installed_files_make_a_bundle_and_verify_it_without_this_tree(installed: Path, tmp_path: Path) -> None:
    recorded = RecordedHome(tmp_path / "home")
    session = recorded.trained()
    out = tmp_path / "bundle.zip"
    code = f"""
import json, runpy, stigmergy
assert stigmergy.foreign() == {{}} and stigmergy.__file__.startswith({str(installed)!r}), stigmergy.__file__
from runtime.bundle.bundle_members import OLDER
assert json.loads(OLDER.read_bytes())
from runtime.cli.main import swarm
for arguments in (
    ['bundle', {session!r}, '-o', {str(out)!r}, '--home', {str(recorded.home.root)!r}],
    ['audit', {str(out)!r}],
    ['config', 'schema'],
):
    assert swarm.main([*arguments, '--json'], standalone_mode=False) == 0, arguments
sys.argv = ['verify_bundle.py', {str(out)!r}]
runpy.run_module('runtime.bundle.verify_bundle', run_name='__main__')
"""
    made, audited, schema, *verdict = foreign_python(installed, code.strip()).splitlines()
    assert json.loads(made)["session"] == session
    assert json.loads(audited)["verdict"] == "pass"
    assert "data" in json.loads(schema)["properties"]
    assert any("PASS" in line.upper() for line in verdict), verdict
