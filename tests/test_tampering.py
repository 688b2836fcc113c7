"""No change of a bundle goes unnoticed, and nothing unchanged is accused."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime import audit
from runtime.bundle import verify_bundle
from runtime.cli.main import swarm
from tests.tampering import ALL, Tally, Tamperer, Target, judge, target


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return target(tmp_path_factory.mktemp("honest"), *ALL)


@pytest.mark.parametrize(("seed", "number"), [(1, 100), pytest.param(2, 500, marks=pytest.mark.long)])
def test_every_one_of_many_mutations_is_noticed_and_located(honest: Target, tmp_path: Path, seed: int, number: int):
    tally = Tally()
    for mutation in islice(Tamperer(honest, seed, tmp_path / "made.zip"), number):
        judge(mutation, tmp_path / "changed.zip", tally)
    assert tally.mutations == number
    assert tally.broke == []
    assert tally.missed == []
    assert tally.unlocated == []


def test_an_honest_bundle_is_never_accused(honest: Target, tmp_path: Path):
    for n, data in enumerate([*honest.honest, *honest.others]):
        path = tmp_path / f"{n}.zip"
        path.write_bytes(data)
        assert audit.check_bundle(path).divergences == ()
        assert verify_bundle.findings(path)["divergence"] is None


def test_what_was_sealed_again_with_every_key_passes_without_an_anchor(honest: Target, tmp_path: Path):
    """Otherwise the mutation would show something else than it says."""
    path = tmp_path / "again.zip"
    path.write_bytes(Tamperer(honest, 2, tmp_path / "made.zip").resealed())
    assert audit.check_bundle(path, root=honest.fingerprint).divergences == ()
    assert verify_bundle.findings(path, honest.fingerprint)["divergence"] is None
    assert audit.check_bundle(path, anchors=[honest.anchor]).divergences[0].what == "anchor"


def test_the_command_ends_with_0_2_or_3(honest: Target, tmp_path: Path):
    codes: Counter[int] = Counter()
    path = tmp_path / "changed.zip"
    for mutation in islice(Tamperer(honest, 3, tmp_path / "made.zip"), 60):
        path.write_bytes(mutation.data)
        given = ["--root", mutation.root] if mutation.root else []
        if mutation.anchor:
            (tmp_path / "anchors").write_text(mutation.anchor)
            given += ["--anchor", str(tmp_path / "anchors")]
        codes[CliRunner().invoke(swarm, ["audit", str(path), *given, "--json"]).exit_code] += 1
    path.write_bytes(honest.data)
    assert set(codes) == {3}
    assert CliRunner().invoke(swarm, ["audit", str(path)]).exit_code == 0
    assert CliRunner().invoke(swarm, ["audit", str(path), "--root", "nonsense"]).exit_code == 2
