"""What a whole crew does is sealed so that a bundle of it passes, with real rows, checkpoints and a real ledger."""

from __future__ import annotations

from pathlib import Path

from bus.blobs import DirectoryBlobs
from contracts.request import read_request
from runtime import audit
from runtime.audit.log_check import make_bundle
from runtime.bundle import verify_bundle
from runtime.home.home import Home
from runtime.log.archive import Archive
from tests.harness import crew, small_request, until_ended


async def test_a_trained_session_passes_as_a_bundle_in_both_verifiers(tmp_path: Path):
    async with crew(tmp_path / "home") as made:
        session = await made.commands.submit(read_request(small_request()).resolved())
        assert (await until_ended(made, session)).state == "completed"
        root = made.tail.admission.root
    home = Home(tmp_path / "home")
    blobs = DirectoryBlobs(home.blobs)
    assert audit.check_log(Archive(home), session, blobs).divergences == ()
    for wanted in ((), ("checkpoints", "dataset")):
        path = make_bundle(Archive(home), session, blobs, tmp_path / "b.zip", wanted=wanted).path
        assert audit.check_bundle(path, root=root).divergences == ()
        assert verify_bundle.findings(path, root)["divergence"] is None
