"""Homes of earlier software are read for ever: same roots, same verdicts, same bundles, same bits."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bus.blobs import DirectoryBlobs
from runtime import audit
from runtime.audit.log_check import make_bundle
from runtime.bundle import verify_bundle
from runtime.engine.environment import sealed
from runtime.home.home import Home
from runtime.log.archive import Archive
from runtime.replay.audit_plan import AuditOptions
from runtime.views.view import summary
from tests.runtime.audit.court import audited

FIXTURES = Path(__file__).parent / "fixtures"
GENERATIONS = sorted(path.name.removeprefix("homes-").removesuffix(".json") for path in FIXTURES.glob("homes-*.json"))
NAMES = ("audit", "crashed", "escaping", "fork", "large", "nan", "own", "proof", "search")
COMPUTED = ("crashed", "own", "fork", "nan", "escaping")


@dataclass
class Old:
    """A home of an earlier generation, unpacked, and what was true of its sessions."""

    home: Home
    sessions: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        self.archive, self.blobs = Archive(self.home), DirectoryBlobs(self.home.blobs)


@pytest.fixture(scope="module", params=GENERATIONS)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Old:
    said = json.loads((FIXTURES / f"homes-{request.param}.json").read_text())
    packed = FIXTURES / f"homes-{request.param}.tar.xz"
    assert hashlib.sha256(packed.read_bytes()).hexdigest() == said["sha256"], "a fixture is added to, never edited"
    root: Path = tmp_path_factory.mktemp("old") / "home"
    with tarfile.open(packed) as archive:
        archive.extractall(root, filter="data")
    assert not list(root.glob("keys/*.key"))
    home = Home(root)
    home.prepare()
    return Old(home, said["sessions"])


@pytest.fixture(scope="module")
def measured() -> str:
    """The fingerprint of this machine, in a process set up as those that train."""
    program = (
        "from runtime.engine import fingerprint, seal\n"
        "seal.apply(profile='exact', threads=1)\n"
        "print(fingerprint.fingerprint().digest)"
    )
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}
    environment = sealed(base, profile="exact", threads=1)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_there_is_a_home_of_every_generation() -> None:
    assert GENERATIONS


@pytest.mark.parametrize("name", NAMES)
def test_an_old_session_is_shown_and_replayed(old: Old, name: str) -> None:
    told, kept = old.sessions[name], old.archive.read(old.sessions[name]["session"])
    assert len(kept.voids) == told.get("voids", 0)
    shown = summary(kept.history.state, old.home.blobs)
    assert (shown["state"], shown["weights_digest"], shown["sealed"]) == (
        told["state"],
        told["weights"],
        told["sealed"],
    )
    assert len(kept.history.state.training.applied) == told["applied"]


@pytest.mark.parametrize("name", NAMES)
def test_the_log_of_an_old_session_has_the_verdict_that_it_had(old: Old, name: str) -> None:
    told = old.sessions[name]
    found = audit.check_log(old.archive, told["session"], old.blobs)
    assert found.divergences == ()
    assert (found.verdict, found.events, found.root, found.sealed) == (
        told["verdict"],
        told["events"],
        told["root"],
        told["sealed"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_old_session_is_bundled_to_the_bytes_to_which_it_was_bundled(old: Old, name: str, tmp_path: Path) -> None:
    told, path = old.sessions[name], tmp_path / "bundle.zip"
    assert make_bundle(old.archive, told["session"], old.blobs, path).digest == told["bundle"]
    assert audit.check_bundle(path, root=old.archive.root).verdict == told["verdict"]
    assert verify_bundle.findings(path)["verdict"] == told["verdict"]


@pytest.mark.parametrize("name", COMPUTED)
async def test_an_old_session_is_computed_to_the_same_bits(old: Old, measured: str, name: str) -> None:
    told = old.sessions[name]
    found = await audited(old.home, told["session"], AuditOptions("full", trust_code=True))
    if told["fingerprint"] == measured:
        assert (found.verdict, found.divergences) == (told["full"], ())
        assert found.spans_checked == found.spans_total > 0
    else:
        assert found.verdict == "not-comparable"
        assert found.differing, "the families of operators that round otherwise are named"
