"""Bundles by who holds every key and chooses every name: an audit writes and reads where it works and nowhere else.

One for each kind of member. What they name is hashed and signed as it must be, so that nothing else refuses it.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from click.testing import CliRunner

from bus import subjects
from bus.chain import Draft, compose
from bus.keys import HEADER
from bus.port import Record
from bus.records import frame, title
from contracts import ids
from contracts.data_manager import DatasetPrepared
from contracts.event import Event
from contracts.exporter import ExportDetails
from contracts.trainer import CheckpointWritten
from runtime import audit
from runtime.bundle import bundle_members, verify_bundle
from runtime.bundle.container import write_container
from runtime.cli.main import swarm
from runtime.engine.dataset import MANIFEST, canonical
from runtime.engine.facts import describe
from runtime.log.archive import Archive
from tests.runtime.audit.conftest import SHORT
from tests.runtime.audit.court import Court
from tests.runtime.recorded_home import TIME, claimed

PLACES = ("canary/x", "canary/deep/x", "x", "work/x", "work/here/x")
"""What lies around an audit, and is neither written nor read."""

FULL = ("manifest", "checkpoints", "dataset")
ALL = ("manifest", "exports", "checkpoints", "dataset")

ROWS = np.zeros((64, 2), "<f4").tobytes()
ODD = ("a\nb", "\x1b[2J", "CON")
"""Names that a file in a folder of its own may have."""


class Ground:
    """A folder in which an audit works, deep in a tree of which every file is known."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.bundle = root, root / "work" / "here" / "bundles" / "evil.zip"
        for place in PLACES:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_bytes(ROWS)
        self.bundle.parent.mkdir()
        temporary = root / "work" / "here" / "tmp"
        temporary.mkdir()
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.chdir(self.bundle.parent)

    @property
    def out(self) -> list[str]:
        """Ways out of wherever one is, to a canary and to devices, and what is no name of a file."""
        up = [f"{'../' * n}x" for n in range(1, 6)]
        absolute = [str(self.root / "canary" / "x"), str(self.root / "new"), "/dev/stdout", "/proc/self/environ"]
        return [*up, *absolute, "canary/x", "..", ".", "", "a\0b", "y" * 256]

    def judged(self) -> tuple[str, str]:
        """What both programs find in the log of the bundle: their reasons, empty where it passes."""
        with self.untouched():
            found, alone = audit.check_bundle(self.bundle), verify_bundle.findings(self.bundle)
        assert found.verdict == alone["verdict"], (found.divergences[:1], alone["divergence"])
        assert not str(alone["divergence"]).startswith("the bundle cannot be read:"), alone
        return (found.divergences[0].message if found.divergences else ""), alone["divergence"] or ""

    def told(self, *options: str) -> list[str]:
        """The verdicts of both commands, each of which must end with one."""
        with self.untouched():
            done = CliRunner().invoke(swarm, ["audit", str(self.bundle), "--json", *options], catch_exceptions=False)
            program = [sys.executable, "-I", str(verify_bundle.__file__), str(self.bundle), "--json"]
            alone = subprocess.run(program, capture_output=True, text=True, check=False)
        assert alone.stderr == ""
        assert "verdict" in done.stdout, done.output
        found = [json.loads(done.stdout)["verdict"], json.loads(alone.stdout)["verdict"]]
        assert [done.exit_code, alone.returncode] == [0 if verdict == "pass" else 3 for verdict in found]
        return found

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Afterwards everything lies there as before, nothing besides, and no canary was read."""
        for place in PLACES:
            os.utime(self.root / place, ns=(0, (self.root / place).stat().st_mtime_ns))
        before = self._tree()
        yield
        assert self._tree() == before

    def _tree(self) -> dict[str, tuple[int, ...]]:
        found = {path: path.lstat() for path in self.root.rglob("*")}
        return {str(path): self._seen(path, one) for path, one in found.items()}

    def _seen(self, path: Path, one: os.stat_result) -> tuple[int, ...]:
        """A folder's own times change when an audit works in it; the bundle is read."""
        if stat.S_ISDIR(one.st_mode):
            return (one.st_mode,)
        return (one.st_mode, one.st_size, one.st_mtime_ns, 0 if path == self.bundle else one.st_atime_ns)


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground(tmp_path / "ground", monkeypatch)


def bundle(
    court: Court, session: str, path: Path, sections: tuple[str, ...] = (), more: Mapping[str, bytes] | None = None
) -> None:
    """The bundle of a session as it is, whatever it says, with these sections; `more` are members that need a hand."""
    archive = Archive(court.home)
    kept, ring = archive.read(session), archive.ring(subjects.partition(session))
    seal = kept.history.state.sealed
    assert ring is not None
    assert seal is not None
    before, texts = ring.stored[: seal.keyring_size], bundle_members.fixed_members()
    records = bundle_members.number_records(kept.stored, seal.size, before)
    digests = {digest for section in sections for digest in bundle_members.section_blobs(kept.history.state, section)}
    members = {f"blobs/{one}": court.blobs.get(one) for one in digests if f"blobs/{one}" not in (more or {})}
    fixed = {
        bundle_members.MARKER: bundle_members.marker(session, sections),
        bundle_members.LOG: title(session) + b"".join(map(frame, records)),
        bundle_members.KEYRING: title(ring.history.id) + b"".join(map(frame, before)),
        **{name: texts[name] for name in bundle_members.FIXED_MEMBERS},
    }
    write_container(
        path, [*fixed.items(), *sorted((members | dict(more or {})).items(), key=lambda one: one[0].encode())]
    )


def sealed(court: Court, *said: tuple[str, Event]) -> str:
    """A session in which this was said."""
    session = court.requested()
    for lane, event in said:
        court.say(session, lane, event)
    court.say(session, "ledger", court.seal(session))
    return session


# ---------------------------------------------------------------- exports


def test_the_names_of_exports_lead_an_audit_nowhere(short_court: Court, ground: Ground) -> None:
    honest, blob = short_court.told[SHORT], short_court.blobs.put(b"a model")
    made = [short_court.file_of(honest, filename=name, blob=blob) for name in (*ground.out, *ODD)]
    beside = ExportDetails(beside={"../x": "0" * 64, "config.json": "3"})
    session = short_court.exporting(honest, *made, made[0].model_copy(update={"details": beside}))
    bundle(short_court, session, ground.bundle, ALL, rows_of(short_court, session))
    assert ground.judged() == ("", "")


def test_a_full_audit_makes_exports_with_such_names_where_it_works(short_court: Court, ground: Ground) -> None:
    honest = short_court.told[SHORT]
    names = ("../x", "../../../x", str(ground.root / "canary" / "x"), "/dev/stdout", "a\0b", ODD[1])
    session = short_court.exporting(honest, *(short_court.file_of(honest, filename=name) for name in names))
    bundle(short_court, session, ground.bundle, FULL, rows_of(short_court, session))
    with ground.untouched():
        done = CliRunner().invoke(swarm, ["audit", str(ground.bundle), "--mode", "full"], catch_exceptions=False)
    assert done.exit_code == 3
    assert done.stdout.count("made again has digest") == len(names), done.output
    assert not set(done.stdout) & {"\0", "\x1b"}


def rows_of(court: Court, session: str) -> dict[str, bytes]:
    """The members that hold a session's dataset."""
    dataset = Archive(court.home).read(session).history.state.training.dataset
    assert dataset is not None
    folder = court.home.blobs / "datasets" / dataset.root
    return {f"dataset/{path.name}": path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------- datasets


def manifest(*files: str, **changes: Any) -> tuple[str, bytes]:
    """The root and the bytes of a manifest whose columns lie in these files."""
    columns = {chr(ord("x") + n): np.frombuffer(ROWS, "<f4").reshape(64, 2) for n in range(len(files))}
    facts = describe({"train": {"x": columns["x"], "y": np.zeros(64, "<i8")}}, "classification").as_json()
    pieces = [blake3(ROWS).hexdigest()]
    stored = {
        name: {"dtype": "<f4", "shape": [64, 2], "file": file, "pieces": pieces}
        for name, file in zip(columns, files, strict=True)
    }
    body = {"format": 1, "facts": facts, "splits": {"train": stored}} | changes
    root = blake3(canonical(body)).hexdigest()
    return root, canonical(body | {"root": root})


def prepared(root: str) -> DatasetPrepared:
    about = {"rows": 64, "splits": {"train": 64}, "bytes": 512, "source": "npz", "source_digest": "0" * 64}
    return DatasetPrepared.model_validate(about | {"root": root, "facts": {"task": "other"}, "findings": []})


def test_the_names_of_rows_lead_an_audit_nowhere(short_court: Court, ground: Ground) -> None:
    for name in (*ground.out, MANIFEST, *ODD):
        root, raw = manifest(name)
        session = sealed(short_court, ("data_manager", prepared(root)))
        members = {f"dataset/{MANIFEST}": raw}
        for sections, more in ((("manifest",), {}), (("manifest", "dataset"), {f"dataset/{name}": ROWS})):
            bundle(short_court, session, ground.bundle, sections, more | members)
            reasons = ground.judged()
            assert all(reasons) != (name in ODD), (name, reasons)
            assert name in ODD or "no name of a file of a dataset" in reasons[0]
    assert ground.told("--mode", "full") == ["not-comparable", "pass"]


def test_two_columns_in_one_file_are_refused(short_court: Court, ground: Ground) -> None:
    root, raw = manifest("rows.bin", "rows.bin")
    session = sealed(short_court, ("data_manager", prepared(root)))
    members = {f"dataset/{MANIFEST}": raw, "dataset/rows.bin": ROWS}
    bundle(short_court, session, ground.bundle, ("manifest", "dataset"), members)
    assert all("two columns lie in one file" in reason for reason in ground.judged())


# ---------------------------------------------------------------- manifests

NO_MANIFESTS = {
    "half a letter": {"splits": {"train": {"x": {"file": "\ud800"}}}},
    "a number for a name": {"splits": {"train": {"x": {"file": 7, "pieces": []}}}},
    "a list for a name": {"splits": {"train": {"x": {"file": ["/dev/zero"], "pieces": []}}}},
    "no splits": {"splits": ["/dev/zero"]},
    "nothing": {},
}


@pytest.mark.parametrize("what", NO_MANIFESTS)
def test_a_manifest_that_is_none_is_told_in_a_sentence(short_court: Court, ground: Ground, what: str) -> None:
    raw = json.dumps(NO_MANIFESTS[what]).encode()
    session = sealed(short_court, ("data_manager", prepared(blake3(raw).hexdigest())))
    bundle(short_court, session, ground.bundle, ("manifest",), {f"dataset/{MANIFEST}": raw})
    assert all("manifest.json" in reason for reason in ground.judged())
    bundle(short_court, session, ground.bundle, ("manifest", "dataset"), {f"dataset/{MANIFEST}": raw})
    assert all(ground.judged())


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":NaN}', b"\xff\xfe", b""])
def test_a_manifest_in_no_spelling_of_json_is_told_in_a_sentence(
    short_court: Court, ground: Ground, raw: bytes
) -> None:
    session = sealed(short_court, ("data_manager", prepared(blake3(raw).hexdigest())))
    bundle(short_court, session, ground.bundle, ("manifest",), {f"dataset/{MANIFEST}": raw})
    assert all("manifest.json" in reason for reason in ground.judged())


@pytest.mark.parametrize("said", ["../x", "/dev/zero", "00-a manifest ../x", "00-a exports exports", "00-\x1b[2J"])
def test_the_marker_of_a_bundle_names_a_session_and_sections_and_nothing_else(
    short_court: Court, ground: Ground, said: str
) -> None:
    bundle(
        short_court, short_court.told[SHORT], ground.bundle, more={"bundle": f"stigmergy/bundle/1 {said}\n".encode()}
    )
    assert all(ground.judged())


def test_members_that_nothing_names_are_refused_by_what_they_are_called(short_court: Court, ground: Ground) -> None:
    for name, folder in zip((*ground.out, *ODD), cycle(("", "blobs/", "dataset/"))):
        bundle(short_court, short_court.told[SHORT], ground.bundle, more={f"{folder}{name}": ROWS})
        product, alone = ground.judged()
        assert "nothing in the log names" in product
        assert "members missing or too many" in alone


# ---------------------------------------------------------------- checkpoints


def unread(court: Court, lane: str, event: Event, session: str, **data: Any) -> None:
    """Say an event whose data are not what they must be, signed as it must be."""
    signer, head = court.signers[lane], court.admission.head(session, lane)
    drafts = [Draft(event, str(ids.new_uuid()))]
    (record,) = compose(drafts, session=session, lane=lane, head=head, signer=signer, source="/s", time=TIME)
    body = json.loads(record.body)
    body["data"] |= data
    raw = json.dumps(body).encode()
    court.store(session, Record(record.subject, raw, {HEADER: signer.sign(raw)}))


def test_a_checkpoint_of_other_bytes_is_never_unpickled_and_told(short_court: Court, ground: Ground) -> None:
    """Its digest is right, and no session was ever in such a state."""
    command = f"cposix\nsystem\n(Vtouch {ground.root / 'ran'}\ntR.".encode()
    honest, blob = short_court.told[SHORT], short_court.blobs.put(command)
    said = [fact.event for fact in short_court.facts[honest] if fact.lane == "trainer"]
    first = next(one for one in said if isinstance(one, CheckpointWritten))
    session = short_court.again(
        honest, [one.model_copy(update={"blob": blob}) if one is first else one for one in said]
    )
    bundle(short_court, session, ground.bundle, FULL, rows_of(short_court, session))
    assert ground.told("--mode", "full")[0] in ("fail", "not-comparable")


def test_a_checkpoint_under_a_name_that_is_no_digest_is_none(short_court: Court, ground: Ground) -> None:
    facts = short_court.facts[short_court.told[SHORT]]
    written = next(fact.event for fact in facts if isinstance(fact.event, CheckpointWritten))
    for name in ground.out:
        session = short_court.requested()
        short_court.say(session, "trainer", claimed())
        unread(short_court, "trainer", written, session, blob=name)
        short_court.say(session, "ledger", short_court.seal(session))
        bundle(short_court, session, ground.bundle, ("checkpoints",), {f"blobs/{name}": ROWS})
        assert all(ground.judged())


# ---------------------------------------------------------------- sources


def test_the_names_of_sources_lead_an_audit_nowhere(short_court: Court, ground: Ground) -> None:
    code = short_court.blobs.put(b"raise SystemExit\n")
    claim = claimed().model_copy(update={"sources": dict.fromkeys((*ground.out, *ODD), code)})
    bundle(short_court, sealed(short_court, ("trainer", claim)), ground.bundle, ("sources",))
    assert ground.judged() == ("", "")
    assert ground.told("--mode", "full") == ["not-comparable", "pass"]


def test_a_source_under_what_is_no_digest_is_told_in_a_sentence(short_court: Court, ground: Ground) -> None:
    """No seal can name it, so no bundle has it; a session that runs has."""
    for name in ground.out:
        session = short_court.requested()
        short_court.say(session, "trainer", claimed().model_copy(update={"sources": {"own": name}}))
        with ground.untouched():
            found = audit.check_log(Archive(short_court.home), session, short_court.blobs)
        assert (found.verdict, found.divergences[0].message) == ("fail", f"source own: {name!r} is no BLAKE3 digest.")
