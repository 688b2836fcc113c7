"""Commands that read the home's files when no swarm is up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bus.keys import KeyStore
from contracts.ids import session_for
from runtime.api.session_source import trained_here
from runtime.cli import sessions
from runtime.cli.main import swarm
from runtime.cli.output import plain
from runtime.host.local_swarm import home_lock
from tests.runtime.recorded_home import RecordedHome, claimed, window
from tests.runtime.recorded_session import full_session

STATE_KEYS = {"session", "kind", "state", "step", "epoch", "weights_digest", "metrics", "artifacts", "wall_s"}
AUDIT_KEYS = {
    "verdict",
    "events",
    "lanes",
    "signatures",
    "root",
    "spans_checked",
    "spans_total",
    "unchecked",
    "first_divergence",
}


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def run(recorded: RecordedHome, *arguments: str) -> Result:
    return CliRunner().invoke(swarm, [*arguments, "--home", str(recorded.home.root)])


def asked(recorded: RecordedHome, *arguments: str) -> dict[str, Any]:
    """The one object that a successful command answers with, on one line."""
    result = run(recorded, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_show_has_the_keys_that_programs_rely_on(recorded: RecordedHome):
    session = recorded.trained()
    found = asked(recorded, "show", session)
    assert found.keys() >= STATE_KEYS
    assert (found["session"], found["state"]) == (session, "completed")
    assert all(Path(one["path"]).is_absolute() for one in found["artifacts"] if "path" in one)


@pytest.mark.parametrize("content", [b"", b"name: x\n", b"root:x:0:0:root:/root:/bin/bash\n" * 40])
def test_an_audit_of_a_file_that_is_no_bundle_says_so(recorded: RecordedHome, tmp_path: Path, content: bytes):
    file = tmp_path / "request.yaml"
    file.write_bytes(content)
    for mode in ("log", "full"):
        result = run(recorded, "audit", str(file), "--mode", mode)
        assert result.exit_code == 2
        assert f"{str(file)!r} is no bundle" in result.stderr


def test_an_audit_of_half_a_bundle_says_what_is_wrong_with_it(recorded: RecordedHome, tmp_path: Path):
    out = tmp_path / "b.zip"
    assert run(recorded, "bundle", recorded.trained(), "-o", str(out)).exit_code == 0
    whole = out.read_bytes()
    for content in (whole[:-100], b"\0" + whole[1:]):
        out.write_bytes(content)
        result = run(recorded, "audit", str(out), "--json")
        assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (3, "fail")


def test_keys_are_listed_and_a_new_one_is_made_ready_for_the_next_start(recorded: RecordedHome):
    known = {one["role"]: one for one in asked(recorded, "keys")["keys"]}
    assert known["trainer"]["key"] == recorded.signers["trainer"].key_id
    assert (known["guest_ant"]["guest"], known["trainer"]["in_force"], known["trainer"]["until"]) == (True, True, None)
    assert "guest_ant" in run(recorded, "keys").stdout
    root = KeyStore(recorded.home.keys).pinned()
    assert len(root) == 64
    assert (asked(recorded, "keys")["root"], run(recorded, "keys").stdout.splitlines()[-1]) == (root, f"root  {root}")
    made = asked(recorded, "keys", "rotate", "trainer")
    assert made == asked(recorded, "keys", "rotate", "trainer"), "what is ready already is not made anew"
    assert made["old"] == known["trainer"]["key"] != made["key"]
    assert run(recorded, "keys", "rotate", "root").exit_code == 6
    assert run(recorded, "keys", "rotate", "cook").exit_code == 4
    assert run(recorded, "keys", "revoke", "trainer", "--reason", "stolen").exit_code == 5
    assert run(recorded, "keys", "revoke", "trainer").exit_code == 2


@pytest.mark.parametrize("name", ["last", "prefix", "id", "tail"])
def test_a_session_may_be_named_in_several_ways(name: str, recorded: RecordedHome):
    session = recorded.trained()
    named = {"last": "last", "prefix": session[:12], "id": session, "tail": session[3:15]}[name]
    assert asked(recorded, "show", named)["session"] == session


def test_last_is_the_training_that_the_stream_has_last_whatever_the_clocks_said(recorded: RecordedHome):
    recorded.requested(time="2026-01-01T00:00:00.000000Z")
    recorded.requested(time="2026-03-01T00:00:00.000000Z")
    newest = recorded.requested(time="2026-02-01T00:00:00.000000Z")
    recorded.requested("export", time="2026-04-01T00:00:00.000000Z")
    assert asked(recorded, "show", "last")["session"] == newest


def test_last_may_be_of_a_kind_and_a_session_may_be_named_by_its_request_id(recorded: RecordedHome):
    mine = recorded.requested(session=session_for("monday"))
    trained, search = recorded.requested(), recorded.requested("search")
    named = {name: asked(recorded, "show", name)["session"] for name in ("last", "last-search", "monday")}
    assert named == {"last": trained, "last-search": search, "monday": mine}
    assert "there is no session 'last-audit'" in run(recorded, "show", "last-audit").stderr
    assert "there is no session 'tuesday'" in run(recorded, "show", "tuesday").stderr


def test_a_beginning_that_fits_several_sessions_is_refused(recorded: RecordedHome):
    recorded.trained()
    recorded.trained()
    result = run(recorded, "show", "00-")
    assert result.exit_code == 2
    assert "fits 2 sessions" in result.stderr


def test_an_unknown_session_is_4(recorded: RecordedHome):
    assert run(recorded, "show", "zz").exit_code == 4


def test_show_at_an_event_is_the_state_of_that_moment(recorded: RecordedHome):
    recorded.trained()
    found = asked(recorded, "show", "last", "--at", "3")
    assert (found["at"], found["step"], found["state"], found["weights_digest"] is None) == (3, 50, "training", False)
    assert found["event"]["seq"] == 3


def test_replay_stops_at_an_event_or_at_a_step(recorded: RecordedHome):
    recorded.trained()
    assert asked(recorded, "replay", "last")["state"] == "completed"
    assert asked(recorded, "replay", "last", "--to", "2")["step"] == 0
    assert asked(recorded, "replay", "last", "--step", "0")["event"]["name"] == "training.claimed"
    assert asked(recorded, "replay", "last", "--step", "50")["step"] == 50
    assert asked(recorded, "replay", "last", "--step", "51")["step"] == 100


def test_replay_beyond_the_end_is_refused_with_the_range(recorded: RecordedHome):
    recorded.trained()
    assert "Choose from 1 to" in run(recorded, "replay", "last", "--to", "999").stderr
    assert "Choose a step up to 100" in run(recorded, "replay", "last", "--step", "101").stderr
    assert run(recorded, "replay", "last", "--to", "1", "--step", "1").exit_code == 2


def test_replay_reads_as_a_page(recorded: RecordedHome):
    recorded.trained()
    text = run(recorded, "replay", "last", "--step", "50").stdout
    assert "after event 3 of" in text
    assert "steps 1..50 loss 1" in text


def test_events_are_one_object_per_line_in_order(recorded: RecordedHome):
    session = recorded.trained()
    lines = [json.loads(line) for line in run(recorded, "events", session).stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(recorded.facts[session]) + 1))
    assert lines[0]["name"] == "session.requested"


def test_events_can_be_chosen_by_place_role_and_name(recorded: RecordedHome):
    recorded.trained()
    assert len(run(recorded, "events", "last", "--name", "window.recorded").stdout.splitlines()) == 2
    assert len(run(recorded, "events", "last", "--lane", "exporter").stdout.splitlines()) == 1
    assert json.loads(run(recorded, "events", "last", "--after", "5").stdout.splitlines()[0])["seq"] == 6


def test_following_an_ended_session_ends(recorded: RecordedHome):
    recorded.trained()
    assert run(recorded, "events", "last", "--follow").exit_code == 0


def test_following_an_open_session_needs_a_swarm(recorded: RecordedHome):
    recorded.requested()
    result = run(recorded, "events", "last", "--follow")
    assert result.exit_code == 5
    assert len(result.stdout.splitlines()) == 1


def test_waiting_for_an_ended_session_returns_its_outcome(recorded: RecordedHome):
    recorded.trained()
    assert asked(recorded, "wait", "last")["state"] == "completed"


def test_watching_an_ended_session_tells_it_in_plain_lines(recorded: RecordedHome):
    recorded.trained()
    result = run(recorded, "watch", "last")
    quiet = run(recorded, "watch", "last", "-q")
    assert (quiet.stderr, quiet.stdout) == ("", result.stdout)
    assert result.exit_code == 0
    assert "trainer: epoch 2 step 100: val_loss=0.25" in result.stderr
    assert "completed" in result.stdout


def test_on_a_terminal_a_session_is_one_line_whose_id_still_names_it(
    recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch
):
    recorded.trained()
    recorded.requested("search", time="2026-02-01T00:00:00.000000Z")
    monkeypatch.setattr(sessions, "terminal_columns", lambda: 80)
    page = run(recorded, "sessions").stdout.splitlines()
    assert len(page) == 3
    assert all(len(line) <= 80 for line in page), page
    assert page[0].split() == ["session", "kind", "name", "state", "step", "best", "age"]
    for line in page[1:]:
        named = line.split()[0]
        assert len(named) < 29
        assert asked(recorded, "show", named)["session"].startswith(named)


def test_a_name_that_is_too_long_for_the_terminal_is_cut_and_nothing_else(recorded: RecordedHome):
    recorded.trained()
    (one,) = asked(recorded, "sessions")["sessions"]
    head, line = sessions.sessions_page([one | {"name": "n" * 120}], [one], 80).splitlines()
    assert max(map(len, map(plain, (head, line)))) == 80
    assert "nn… " in line
    assert "100/100" in line


def test_without_a_terminal_ids_and_names_are_whole(recorded: RecordedHome):
    session = recorded.trained()
    assert f"{session}  training" in run(recorded, "sessions").stdout


def test_beginnings_of_ids_are_as_long_as_it_takes_to_tell_them_apart():
    known = ["00-aaaaaaaaaaaaaa1", "00-aaaaaaaaaaaaaa2", "00-b"]
    assert sessions.short(known[:1], known) == known[:1]
    assert sessions.short(known[2:], known[1:]) == ["00-b"]
    assert sessions.short(["00-abcdefghijklm"], ["00-abcdefghijklm"]) == ["00-abcdefgh"]


@pytest.mark.parametrize(
    ("seconds", "told"), [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d")]
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, told: str):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert sessions.age((now - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z"), now) == told


def test_sessions_are_listed_newest_first(recorded: RecordedHome):
    old = recorded.requested(time="2026-01-01T00:00:00.000000Z")
    new = recorded.requested("search", time="2026-02-01T00:00:00.000000Z")
    assert [one["session"] for one in asked(recorded, "sessions")["sessions"]] == [new, old]
    assert [one["session"] for one in asked(recorded, "sessions", "--kind", "search")["sessions"]] == [new]
    assert [one["session"] for one in asked(recorded, "sessions", "-n", "1")["sessions"]] == [new]


def test_audit_passes_with_the_keys_that_programs_rely_on(recorded: RecordedHome):
    recorded.trained()
    found = asked(recorded, "audit", "last", "--root", recorded.fingerprint)
    assert found.keys() >= AUDIT_KEYS
    assert (found["verdict"], found["root"]) == ("pass", recorded.fingerprint)


def test_a_tampered_session_is_3_and_names_the_place(recorded: RecordedHome):
    session = recorded.trained()
    path = recorded.home.log(session)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    result = run(recorded, "audit", session, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (3, "fail")
    assert found["first_divergence"]["message"]


def test_an_audit_against_another_root_is_3(recorded: RecordedHome):
    recorded.trained()
    assert run(recorded, "audit", "last", "--root", "0" * 64).exit_code == 3


def test_the_dead_letters_of_the_files_are_shown(recorded: RecordedHome):
    recorded.trained()
    assert asked(recorded, "dlq") == {"letters": [], "voids": []}
    assert asked(recorded, "dlq", "list") == {"letters": [], "voids": []}


def test_admitted_guests_are_listed_among_the_agents(recorded: RecordedHome):
    found = {one["name"]: one for one in asked(recorded, "agents")["agents"]}
    assert found["trainer"]["hears"] == ["session.requested", "cancel.requested", "dataset.prepared"]
    assert found["trainer"]["running"] is False
    assert found["ant"]["guest"] is True
    told = run(recorded, "agents").stdout
    assert told.endswith("says   what it likes, in its own lane guest_ant\n")
    assert "Guests' failures are in the sessions: swarm events S --name handler.failed" in run(recorded, "dlq").stdout


def test_a_guest_that_answers_the_seal_is_told_that_nothing_is_stored_of_it(recorded: RecordedHome, tmp_path: Path):
    source = tmp_path / "late.py"
    source.write_text(LATE)
    done = run(recorded, "agent", "run", str(source))
    assert done.exit_code == 4, "it was never admitted"
    (told,) = [line for line in done.stderr.splitlines() if "session.sealed" in line]
    assert told.startswith("'answer' answers session.sealed, and a sealed session stores no answer: answer an earlier")


LATE = """
from contracts.ledger import SessionSealed
from stigmergy import Agent, Event, on

class LateSaid(Event, wire="late.said"):
    text: str

class Late(Agent):
    @on
    async def answer(self, sealed: SessionSealed) -> LateSaid:
        return LateSaid(text=sealed.root)

    @on
    async def look(self, sealed: SessionSealed) -> None: ...
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "b.zip"], 4, "Bundles are for: swarm audit"),
        (["events", "b.zip"], 4, "Bundles are for: swarm audit, report, diff, diagnose, trace and trials."),
        (["replay", "b.zip"], 4, "'b.zip' is a bundle"),
        (["predict", "b.zip", "rows.csv"], 4, "'b.zip' is a bundle"),
        (["inspect", "b.zip"], 2, "name a file of its folder blobs"),
        (["trace", "b.zip", "--row", "1"], 4, "a bundle has them when it was made with `swarm bundle S --dataset`"),
        (["show", "text"], 4, "there is no session 'text'"),
        (["report", "b.zip"], 0, "swarm audit b.zip --root FP --mode full"),
    ],
)
def test_a_bundle_is_told_from_a_session_with_what_takes_one(
    recorded: RecordedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
):
    monkeypatch.chdir(tmp_path)
    made = run(recorded, "bundle", full_session(recorded), "-o", "b.zip")
    assert made.exit_code == 0, made.output
    Path("text").write_text("no bundle")
    done = run(recorded, *arguments)
    assert (done.exit_code, said in f"{done.stdout}{done.stderr}".replace("\n", " ")) == (code, True), done.output
    assert "/tmp" not in done.stderr


def test_a_bundle_says_which_wish_there_was_nothing_for(recorded: RecordedHome, tmp_path: Path):
    done = run(recorded, "bundle", recorded.trained(seal=True), "-o", str(tmp_path / "b.zip"), "--dataset")
    assert (done.exit_code, done.stderr) == (0, "There is nothing for --dataset: this session has none.\n")


def test_down_with_nothing_up_is_0(recorded: RecordedHome):
    assert asked(recorded, "down") == {"was_up": False, "pid": None, "orphan": None}


def test_settings_are_shown_with_their_origin(recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch):
    (recorded.home.root / "settings.toml").write_text('log_level = "debug"\n')
    monkeypatch.setenv("SWARM_WORKER", "here")
    found = asked(recorded, "config", "show")
    assert found["log_level"] == {"value": "debug", "origin": "settings.toml"}
    assert found["worker"] == {"value": "here", "origin": "environment"}
    assert found["home"]["origin"] == "option"
    assert found["llm_url"]["origin"] == "default"


def test_the_schema_of_requests_holds_that_of_settings(recorded: RecordedHome):
    found = asked(recorded, "config", "schema")
    assert "data" in found["properties"]
    assert "store_bytes" in found["$defs"]["Settings"]["properties"]
    assert "store_bytes" in asked(recorded, "config", "schema", "settings")["properties"]


def test_a_request_is_shown_with_every_default(recorded: RecordedHome, tmp_path: Path):
    path = tmp_path / "request.yaml"
    path.write_text("data: {source: digits}\nmodel: {architecture: linear}\nmode: production\n")
    found = asked(recorded, "config", "show", str(path), "--set", "training.batch_size=8")
    assert found["training"]["epochs"] == 100
    assert found["training"]["batch_size"] == 8


def test_with_no_swarm_up_a_session_that_has_not_ended_says_that_nobody_has_it_and_how_it_goes_on(
    recorded: RecordedHome,
):
    ended, session = recorded.trained(), recorded.requested()
    recorded.say(session, "trainer", claimed(), window(0, 50))
    waits = asked(recorded, "show", session)["waits"]
    assert "nobody has it now" in waits
    assert "swarm up" in waits
    assert "nobody has it now" in run(recorded, "show", session).stdout
    listed = {one["session"]: one["waits"] for one in asked(recorded, "sessions")["sessions"]}
    assert listed == {ended: "", session: waits}
    assert "training (waits)" in run(recorded, "sessions").stdout


def test_a_session_that_is_trained_here_is_somebodys(recorded: RecordedHome):
    with home_lock(recorded.home):
        assert trained_here(recorded.home)
    assert not trained_here(recorded.home)
