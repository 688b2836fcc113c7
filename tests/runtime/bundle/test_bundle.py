"""A bundle is a function of its session and of what was chosen, and audits like the session itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from bus.blobs import DirectoryBlobs
from bus.chain import Draft, compose
from bus.keys import HEADER
from bus.port import Record
from contracts.errors import NotFound, NotVerified, Refused
from contracts.event import Event, events
from contracts.ids import new_uuid, session_id
from contracts.keyring import KeyAdmitted, KeyRotated, key_id
from contracts.operator import CancelRequested, SessionRequested
from contracts.validator import CheckpointValidated
from runtime import audit
from runtime.audit import Verdict
from runtime.audit.log_check import make_bundle
from runtime.bundle import bundle_members, verify_bundle
from runtime.bundle.container import Container, write_container
from runtime.bundle.writer import BundleFile, write_bundle
from runtime.cli.main import swarm
from runtime.log.archive import Archive
from tests.contracts.make_goldens import lines, schema_file
from tests.forgery import Story
from tests.runtime.recorded_home import REQUEST, TIME, RecordedHome, claimed, evaluated, window
from tests.runtime.recorded_session import FootprintEstimated, full_session, prepared, written

ALL = ("exports", "checkpoints", "dataset")


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def bundled(recorded: RecordedHome, session: str, path: Path, *wanted: str) -> BundleFile:
    return make_bundle(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs), path, wanted=wanted)


def judged(path: Path, root: str = "") -> Verdict:
    """The verdict of both verifiers, which must be the same."""
    found, other = audit.check_bundle(path, root=root), verify_bundle.findings(path, root)
    assert found.verdict == other["verdict"], (found.divergences[:1], other["divergence"])
    if found.verdict == "pass":
        told = ("session", "events", "signatures", "sealed", "root")
        assert [other[name] for name in told] == [found.as_json()[name] for name in told]
        assert other["lanes"] == found.as_json()["lanes"]
    return found


@pytest.mark.parametrize("wanted", [(), ("checkpoints",), ALL])
def test_a_bundle_passes_by_itself(recorded: RecordedHome, tmp_path: Path, wanted: tuple[str, ...]):
    session = full_session(recorded)
    made = bundled(recorded, session, tmp_path / "b.zip", *wanted)
    assert set(made.sections) == {"manifest", "sources", *wanted}
    for root in ("", recorded.fingerprint):
        found = judged(made.path, root)
        assert (found.verdict, found.session) == ("pass", session)
        assert found.events == found.signed_events + 1
        assert found.root == (root or "unanchored")


def test_what_a_bundle_leaves_out_is_unchecked(recorded: RecordedHome, tmp_path: Path):
    made = bundled(recorded, full_session(recorded), tmp_path / "b.zip")
    unchecked = judged(made.path).unchecked
    told = "\n".join(unchecked)
    assert [one for one in unchecked if "heckpoint" in one] == [
        "checkpoints: 4 are not in the bundle; the log has their digests",
        "2 checkpoints were let go, as the log says, which has the digests",
    ]
    for what in ("export model.onnx", "its rows", "2 checkpoints were let go", "unanchored"):
        assert what in told


def test_the_program_inside_lists_as_much_unchecked(recorded: RecordedHome, tmp_path: Path):
    session = full_session(recorded, seal=False)
    recorded.say(session, "operator", CancelRequested(asked_by="person_ann"), CancelRequested(asked_by="owner"))
    recorded.say(session, "ledger", recorded.seal(session))
    archive, blobs = Archive(recorded.home), DirectoryBlobs(recorded.home.blobs)
    some, every = (write_bundle(archive, session, blobs, tmp_path / f"{len(one)}", wanted=one) for one in ((), ALL))
    everywhere = [
        "2 checkpoints were let go, as the log says, which has the digests",
        "1 decision of a person was not compared with what was signed: `swarm audit` does that",
        "1 event of a type unknown here: only the place in the log is verified, not the data",
        "the computation itself was not repeated",
    ]
    assert verify_bundle.findings(every.path, recorded.fingerprint)["unchecked"] == everywhere
    assert verify_bundle.findings(some.path, recorded.fingerprint)["unchecked"] == [
        "exports: 2 are not in the bundle; the log has the digests",
        "checkpoints: 5 are not in the bundle; the log has the digests",
        "dataset: its rows are not in the bundle, nor what they are called",
        *everywhere,
    ]


def test_the_same_session_gives_the_same_bytes_whatever_came_later(recorded: RecordedHome, tmp_path: Path):
    session = full_session(recorded)
    first = bundled(recorded, session, tmp_path / "a.zip", *ALL)
    bee = KeyAdmitted(role="guest_bee", public=recorded.signers["guest_ant"].public[::-1], guest=True)
    recorded.say(recorded.ring, "desk", bee)
    full_session(recorded)
    assert bundled(recorded, session, tmp_path / "b.zip", *ALL).digest == first.digest


def test_any_tool_can_open_it(recorded: RecordedHome, tmp_path: Path):
    made = bundled(recorded, full_session(recorded), tmp_path / "b.zip", *ALL)
    with zipfile.ZipFile(made.path) as file:
        assert file.testzip() is None
        assert file.namelist()[:5] == ["bundle", "log", "keyring", "schemas.json", "verify_bundle.py"]
        assert file.read("verify_bundle.py") == Path(verify_bundle.__file__).read_bytes()


def test_the_program_inside_verifies_it_with_nothing_but_one_library(recorded: RecordedHome, tmp_path: Path):
    made = bundled(recorded, full_session(recorded), tmp_path / "b.zip", *ALL)
    lone = tmp_path / "lone"
    lone.mkdir()
    with zipfile.ZipFile(made.path) as file:
        file.extract("verify_bundle.py", lone)
    program = (
        "import sys, runpy\n"
        "assert not {'contracts', 'bus', 'runtime', 'pydantic', 'blake3'} & set(sys.modules)\n"
        "class Refusing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('contracts', 'bus', 'runtime', 'agents', 'pydantic', 'blake3', 'orjson'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refusing())\n"
        f"sys.argv = ['verify_bundle.py', {str(made.path)!r}, '--root', {recorded.fingerprint!r}]\n"
        f"runpy.run_path({str(lone / 'verify_bundle.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=lone, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass" in done.stdout


def extracted(recorded: RecordedHome, folder: Path) -> tuple[Path, Path]:
    """A bundle, and the program that was in it."""
    made = bundled(recorded, full_session(recorded), folder / "b.zip")
    with zipfile.ZipFile(made.path) as file:
        return made.path, Path(file.extract("verify_bundle.py", folder))


def run_alone(program: Path, *given: str, flags: str = "-I") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, flags, str(program), *given], capture_output=True, text=True, check=False)


def test_the_program_inside_ends_with_0_3_or_2_and_tells_one_line_of_json(recorded: RecordedHome, tmp_path: Path):
    path, program = extracted(recorded, tmp_path)
    done = run_alone(program, str(path), "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"], done.stdout.count("\n")) == (0, "pass", 1)
    for given in ([], ["--json"]):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "changed.zip").write_bytes(data)
        done = run_alone(program, str(tmp_path / "changed.zip"), *given)
        assert done.returncode == 3
        assert done.stdout.count("\n") == 1 or not given
        assert (json.loads(done.stdout)["verdict"] if given else done.stdout.split()[1]) == "fail"
    for wrong in ([str(tmp_path / "nothing.zip")], [str(path), "--root", "12"], [str(path), "--anchor", "nothing"], []):
        done = run_alone(program, *wrong, "--json")
        assert (done.returncode, done.stdout) == (2, "")


def test_without_a_library_for_signatures_the_program_inside_says_so_and_ends_with_2(
    recorded: RecordedHome, tmp_path: Path
):
    path, program = extracted(recorded, tmp_path)
    done = run_alone(program, str(path), flags="-IS")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "python -m pip install cryptography" in done.stderr


def test_both_programs_say_the_same_of_another_root(recorded: RecordedHome, tmp_path: Path):
    path, _ = extracted(recorded, tmp_path)
    said = f"its keys are those of root {recorded.fingerprint}, and root {'0' * 64} is to be trusted"
    assert said in audit.check_bundle(path, root="0" * 64).divergences[0].message
    assert said in verify_bundle.findings(path, "0" * 64)["divergence"]


def test_what_it_was_sealed_with_goes_into_it(recorded: RecordedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = full_session(recorded)
    newer = {name: text + b"\n" for name, text in bundle_members.fixed_members().items()}
    monkeypatch.setattr(bundle_members, "fixed_members", lambda: newer)
    made = bundled(recorded, session, tmp_path / "b.zip")
    with Container(made.path) as file:
        assert file.read("verify_bundle.py") == Path(verify_bundle.__file__).read_bytes()


def test_another_root_believes_nothing(recorded: RecordedHome, tmp_path: Path):
    made = bundled(recorded, full_session(recorded), tmp_path / "b.zip")
    assert judged(made.path, "0" * 64).verdict == "fail"


def test_an_open_session_is_not_bundled(recorded: RecordedHome, tmp_path: Path):
    with pytest.raises(Refused, match="not sealed"):
        bundled(recorded, full_session(recorded, seal=False), tmp_path / "b.zip")
    assert list(tmp_path.glob("*.zip*")) == []


def test_a_checkpoint_that_is_gone_is_not_bundled_in_silence(recorded: RecordedHome, tmp_path: Path):
    session = recorded.trained()
    for path in recorded.home.blobs.rglob("*"):
        if path.is_file() and path.read_bytes() == b"a checkpoint":
            path.unlink()
    with pytest.raises(NotFound):
        bundled(recorded, session, tmp_path / "b.zip", "checkpoints")
    assert bundled(recorded, session, tmp_path / "b.zip").sections == ()


def test_the_ledgers_key_may_be_rotated_before_the_seal(recorded: RecordedHome, tmp_path: Path):
    session = full_session(recorded, seal=False)
    from bus.keys import new_signer

    old, recorded.signers["ledger"] = recorded.signers["ledger"], new_signer("ledger")
    public = recorded.signers["ledger"].public
    recorded.say(recorded.ring, "root", KeyRotated(role="ledger", old=key_id(old.public), public=public))
    recorded.say(session, "ledger", recorded.seal(session))
    assert judged(bundled(recorded, session, tmp_path / "b.zip").path, recorded.fingerprint).verdict == "pass"


def test_a_guest_may_be_admitted_again_to_hear_something_else(recorded: RecordedHome, tmp_path: Path):
    ant = KeyAdmitted(
        role="guest_ant", public=recorded.signers["guest_ant"].public, guest=True, hears=["window.recorded"]
    )
    recorded.say(recorded.ring, "desk", ant)
    made = bundled(recorded, full_session(recorded), tmp_path / "b.zip")
    assert judged(made.path, recorded.fingerprint).verdict == "pass"


def test_the_command_writes_a_bundle_and_leaves_files_alone(recorded: RecordedHome, tmp_path: Path):
    session = full_session(recorded)
    given = ["bundle", session[:14], "-o", str(tmp_path / "b.zip"), "--home", str(recorded.home.root), "--json"]
    shown = json.loads(CliRunner().invoke(swarm, [*given, "--dataset"]).stdout)
    assert shown["digest"] == hashlib.sha256(Path(shown["path"]).read_bytes()).hexdigest()
    assert shown["sections"] == ["manifest", "sources", "dataset"]
    assert CliRunner().invoke(swarm, given).exit_code == 6
    assert json.loads(CliRunner().invoke(swarm, [*given, "--force"]).stdout)["sections"] == ["manifest", "sources"]


@pytest.mark.parametrize("content", [b"", b"PK", b"not a bundle at all", b"PK\3\4" * 100])
def test_what_is_no_bundle_fails(tmp_path: Path, content: bytes):
    (tmp_path / "b.zip").write_bytes(content)
    assert judged(tmp_path / "b.zip").divergences[0].what == "bundle"


def test_a_container_of_something_else_fails(tmp_path: Path):
    write_container(tmp_path / "b.zip", [("bundle", b"stigmergy/bundle/2 00-a\n"), ("log", b"")])
    assert judged(tmp_path / "b.zip").verdict == "fail"


def test_a_bundle_describes_every_version_that_was_ever_shipped():
    described = json.loads(bundle_members.event_schemas())
    shipped = {(wire, version) for wire in events() for version, _ in lines(wire)}
    assert {f"{wire}/{version}" for wire, version in shipped} == set(described)
    for wire, version in shipped:
        if version < events()[wire].version():
            assert described[f"{wire}/{version}"]["schema"] == json.loads(schema_file(wire, version).read_text())
            assert described[f"{wire}/{version}"]["said_by"] == described[events()[wire].schema_id]["said_by"]


def lowered(recorded: RecordedHome, session: str, lane: str, event: Event, version: int, *missing: str) -> None:
    """Say an event as the software said it that knew only this version."""
    signer = recorded.signers["desk" if lane == "operator" else lane]
    head = recorded.admission.head(session, lane)
    drafts = [Draft(event, str(new_uuid()))]
    (record,) = compose(drafts, session=session, lane=lane, head=head, signer=signer, source="/s", time=TIME)
    body = json.loads(record.body)
    body["dataschema"] = f"{event.wire}/{version}"
    body["data"] = {name: value for name, value in body["data"].items() if name not in missing}
    raw = json.dumps(body).encode()
    (fact,) = recorded.store(session, Record(record.subject, raw, {HEADER: signer.sign(raw)}))
    assert type(fact.event) is type(event)


def test_a_session_begun_by_older_and_sealed_by_newer_software_passes(recorded: RecordedHome, tmp_path: Path):
    session = session_id(new_uuid())
    head = recorded.admission.keyring().head
    genesis = SessionRequested(kind="training", request=REQUEST, keyring=head, asked_by="test", rules=1)
    lowered(recorded, session, "operator", genesis, 2, "rules")
    rows = prepared(recorded)
    lowered(recorded, session, "data_manager", rows, 1, "origins")
    lowered(recorded, session, "trainer", claimed().model_copy(update={"dataset": rows.root}), 1, "initial", "grant")
    recorded.say(session, "trainer", window(0, 50), evaluated(50, 0.5))
    lowered(recorded, session, "trainer", written(recorded, 50), 1)
    recorded.say(session, "ledger", recorded.seal(session))
    made = bundled(recorded, session, tmp_path / "b.zip", "checkpoints", "dataset")
    assert judged(made.path, recorded.fingerprint).verdict == "pass"
    assert not any("unknown" in told for told in judged(made.path).unchecked)
    assert recorded.admission.rules(session) == 1


def test_no_bundle_is_made_that_the_program_inside_refuses(
    recorded: RecordedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    session = full_session(recorded)
    monkeypatch.setattr(verify_bundle, "RULES", 1)
    with pytest.raises(NotVerified, match="it is admitted by rules 2; this program knows up to 1"):
        bundled(recorded, session, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_a_program_that_only_the_seal_vouches_for_is_packed_and_not_run(recorded: RecordedHome, tmp_path: Path):
    """Who has the ledger's key may seal any program with a session."""
    session = full_session(recorded, seal=False)
    (tmp_path / "ran").mkdir()
    theirs = recorded.blobs.put(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).rmdir()\n".encode())
    said = recorded.seal(session)
    members = dict(said.members) | {"verify_bundle.py": theirs}
    recorded.say(session, "ledger", recorded.signed(session, said.model_copy(update={"members": members})))
    made = bundled(recorded, session, tmp_path / "b.zip")
    assert made.older
    assert (tmp_path / "ran").exists()
    assert not bundled(recorded, full_session(recorded), tmp_path / "c.zip").older


def test_a_session_of_before_that_holds_a_constant_passes_in_both_programs(recorded: RecordedHome, tmp_path: Path):
    session = recorded.requested(rules=1)
    recorded.say(session, "trainer", claimed())
    head, signer = recorded.admission.head(session, "guest_ant"), recorded.signers["guest_ant"]
    drafts = [Draft(FootprintEstimated(grams=12.5), str(new_uuid()))]
    (record,) = compose(drafts, session=session, lane="guest_ant", head=head, signer=signer, source="/s", time=TIME)
    body = record.body.replace(b"12.5", b"[NaN,-Infinity]")
    assert recorded.store(session, Record(record.subject, body, {HEADER: signer.sign(body)}))
    recorded.say(session, "ledger", recorded.seal(session))
    assert judged(bundled(recorded, session, tmp_path / "b.zip").path, recorded.fingerprint).verdict == "pass"


STEERS = [
    *map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x202E, 0x2066, 0x200F, 0xFEFF]),
    "\x1b[2K\rverdict     pass",
]


def test_what_others_wrote_steers_no_terminal_in_the_program_inside(tmp_path: Path):
    """The keys of an object stand in the reason for which it is refused."""
    story, name = Story(), "".join(STEERS)
    story.begin()
    about = {"segment": 1, "step": 1, "blob": "0" * 64, "split": "val", "rows": 1, "details": {}, "metrics": {}}
    said = CheckpointValidated(control="reproduced", **about)
    story.say("validator", said, edit=lambda body: body["data"]["metrics"].update({name: []}))
    story.seal()
    path = str(story.bundle(tmp_path / "evil.zip"))
    told = run_alone(Path(verify_bundle.__file__), path)
    assert told.returncode == 3
    assert told.stdout.startswith("verdict     fail\n")
    assert [line.partition(" ")[0] for line in told.stdout.split("\n")] == ["verdict", "root", "divergence", ""]
    assert not set(told.stdout) & set(STEERS) - {"\n"}
    told = run_alone(Path(verify_bundle.__file__), path, "--json")
    assert not set(told.stdout) & set(STEERS) - {"\n"}
    assert name in json.loads(told.stdout)["divergence"]
