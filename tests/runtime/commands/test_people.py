"""Who may do what: every command with every identity, people from their admission to their end, and what is forged."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import subjects
from bus.blobs import DirectoryBlobs
from bus.keys import new_signer, signer_of
from bus.rights import rights
from bus.signed_commands import sign_command
from contracts.commands import BODIES
from contracts.envelope import timestamp
from contracts.errors import Refused
from contracts.keyring import KeyAdmitted, KeyRevoked, fingerprint
from contracts.operator import CancelRequested, ExportRequested, PauseRequested, ProposalApproved, RedriveRequested
from contracts.roles import BUILT_IN
from contracts.signed_command import MOST_KEPT, SignedCommand
from runtime.audit.log_check import check_log
from runtime.commands import askers
from runtime.commands.askers import Askers
from runtime.commands.client import PersonKey
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from tests.harness import crew, small_request

COMMANDS = {
    "ask": [
        "train",
        "search",
        "trial",
        "fork",
        "prove",
        "export",
        "audit",
        "session",
        "sessions",
        "events",
        "status",
        "dlq",
        "keys",
    ],
    "decide": ["cancel", "pause", "resume", "approve", "reject", "redrive"],
    "administer": ["admit", "person", "rotate", "revoke"],
}
TABLE = {
    "owner": "ask decide administer",
    "client": "ask decide",
    "guest_fly": "",
    "person_a": "ask",
    "person_d": "decide",
    "person_m": "administer",
    "person_ad": "ask decide",
    "person_am": "ask administer",
    "person_dm": "decide administer",
    "person_adm": "ask decide administer",
    "person_gone": "",
    "hyperparameter_specialist": "ask decide",
    "diagnostician": "ask decide",
    **dict.fromkeys(set(BUILT_IN) - {"hyperparameter_specialist", "diagnostician"}, ""),
}
"""What each identity may do; the only place of this file that says so."""

HARMLESS: dict[str, dict[str, object]] = {
    "trial": {"parent": "nothing", "request": {}},
    "fork": {"session": "nothing", "step": 1},
    "redrive": {"failure": "nothing"},
    "approve": {"session": "nothing", "proposal": "nothing"},
    "reject": {"session": "nothing", "proposal": "nothing"},
    "admit": {"name": "!"},
    "person": {"name": "!"},
    "rotate": {"role": "nothing"},
    "revoke": {"key": "nothing", "reason": "none"},
    **{
        verb: {"session": "nothing"}
        for verb in ["prove", "export", "audit", "session", "events", "cancel", "pause", "resume"]
    },
}
"""Bodies of commands that are understood and come to nothing; the others need none."""

PAIRS = [(right, verb) for right, verbs in COMMANDS.items() for verb in verbs]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[SwarmNode]:
    async with crew(tmp_path, ()) as made:
        yield made


async def person(made: SwarmNode, name: str, *may: str) -> PersonKey:
    """Somebody who is admitted, by the secrets in the credentials file."""
    creds = Path((await made.commands.verbs["person"]({"name": name, "rights": list(may)}))["creds"])
    assert creds.stat().st_mode & 0o777 == 0o600
    found = json.loads(creds.read_text())
    return PersonKey(signer_of(f"person_{name}", found["key"].encode(), creds), found["root"])


def signed(who: PersonKey, right: str, verb: str, content: dict[str, object], /, **changes: Any) -> tuple[str, bytes]:
    """Subject and bytes of a command as its signer sends it, unless `changes` say otherwise."""
    subject = subjects.signed_command(who.signer.role, right, verb)
    made = sign_command(who.signer, subject, orjson.dumps(content), who.root, changes.pop("at", ""))
    return subject, orjson.dumps(made.model_dump(exclude={"subject"}) | changes)


async def answer(made: SwarmNode, subject: str, body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(await made.commands.answer(subject, body))
    return found


async def told(made: SwarmNode, subject: str, body: bytes) -> str:
    """The error that is answered."""
    error = (await answer(made, subject, body))["error"]
    return f"{error['code']}: {error['message']} {error['cure']}"


def test_the_table_has_every_command_with_the_right_that_its_model_names() -> None:
    assert {verb: kind.right for verb, kind in BODIES.items()} == {verb: right for right, verb in PAIRS}


async def test_the_desk_does_for_each_identity_what_the_table_says_and_names_the_right_that_is_missing(
    made: SwarmNode,
) -> None:
    people = {
        name: await person(made, name.removeprefix("person_"), *may.split())
        for name, may in TABLE.items()
        if name.startswith("person_") and may
    }
    people["person_gone"] = await person(made, "gone", "ask", "decide", "administer")
    await made.commands.verbs["revoke"]({"key": "gone", "reason": "it left"})
    root = made.tail.admission.root
    people |= {role: PersonKey(made.keys[role], root) for role in BUILT_IN}
    people["guest_fly"] = PersonKey(new_signer("guest_fly"), root)
    ways = {"owner": subjects.owner_command, "client": subjects.command}
    for name, may in TABLE.items():
        for right, verb in PAIRS:
            body = HARMLESS.get(verb, {})
            if name in ways:
                found = await answer(made, ways[name](verb), orjson.dumps(body))
            else:
                found = await answer(made, *signed(people[name], right, verb, body))
            error = found.get("error", {"code": "", "message": ""})
            refused = (
                "needs the right" in error["message"] or error["code"] == "not-verified" or "ended" in error["message"]
            )
            assert refused != (right in may.split()), (name, verb, found)
            if refused and "needs the right" in error["message"]:
                assert f"`{right}`" in error["message"]
                assert "swarm person new" in error["cure"]


def test_the_server_forbids_each_identity_what_the_table_does_not_grant() -> None:
    for name, may in TABLE.items():
        held = rights(name, tuple(may.split()))  # type: ignore[arg-type]
        for right, verb in PAIRS:
            subject = subjects.signed_command(name, right, verb)
            if name in ("owner", "client"):
                subject = (subjects.owner_command if name == "owner" else subjects.command)(verb)
            allowed = any(subjects.matches(one, subject) for one in held.publish) and subject not in held.never
            assert allowed == (right in may.split()), (name, verb)
            if name.startswith(("person_", "guest_")):
                others = (subjects.command(verb), subjects.owner_command(verb), f"swarm.signed.person_x.{right}.{verb}")
                assert not any(subjects.matches(one, other) for one in held.publish for other in others)


async def test_a_right_that_the_subject_names_is_not_believed(made: SwarmNode) -> None:
    ann = await person(made, "ann", "ask")
    assert "needs the right `decide`" in await told(made, *signed(ann, "ask", "cancel", {"session": "last"}))


async def test_a_command_is_taken_once_for_this_deployment_within_a_minute_from_whoever_signed_just_it(
    made: SwarmNode, tmp_path: Path
) -> None:
    ann, bob = await person(made, "ann", "ask", "decide"), await person(made, "bob", "ask", "decide")
    subject, body = signed(ann, "ask", "status", {})
    assert "agents" in await answer(made, subject, body)
    assert "asked before" in await told(made, subject, body)
    there = f"{subject.removesuffix('status')}keys"
    fresh = signed(ann, "ask", "status", {})[1]
    assert "not-verified" in await told(made, there, fresh)
    assert "not-verified" in await told(made, subject.replace("ann", "bob"), fresh)
    assert "agents" in await answer(made, subject, fresh), "what was refused did not use up the nonce"
    for changes in ({"body": '{"x": 1}'}, {"nonce": 32 * "0"}, {"time": timestamp()}):
        assert "not-verified" in await told(made, *signed(ann, "ask", "status", {}, **changes))
    elsewhere = PersonKey(ann.signer, fingerprint(new_signer("root").public))
    assert "not-verified" in await told(made, *signed(elsewhere, "ask", "status", {}))
    forger = PersonKey(new_signer("person_ann"), ann.root)
    assert "is not one of 'person_ann'" in await told(made, *signed(forger, "ask", "status", {}))
    assert "is not one of 'person_ann'" in await told(
        made, subject, signed(PersonKey(bob.signer, ann.root), "ask", "status", {})[1]
    )
    for nothing in (b"{}", b"", b"[1]", orjson.dumps({"session": "last"}), orjson.dumps({"body": 5})):
        assert "no signed command" in await told(made, subject, nothing)
    for at in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00.000000Z"):
        said = await told(made, *signed(ann, "ask", "status", {}, at=at))
        assert at in said
        assert "Set both clocks" in said
    assert "no time" in await told(made, *signed(ann, "ask", "status", {}, at="2026-99-99T00:00:00Z"))


async def test_what_is_remembered_of_signed_commands_is_bounded_and_outlives_no_window(
    made: SwarmNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(askers, "MOST_NONCES", 3)
    ann, now = await person(made, "ann", "ask"), [time.time()]
    desk = Askers(made.tail.admission.keyring, lambda: now[0])
    for _ in range(3):
        desk.identify(*signed(ann, "ask", "status", {}))
    with pytest.raises(Refused, match="3 commands within 120 s"):
        desk.identify(*signed(ann, "ask", "status", {}))
    now[0] += 121
    desk._forget()
    assert not desk._nonces
    assert not +desk._counts
    with pytest.raises(Refused, match="before this host began"):
        Askers(made.tail.admission.keyring, lambda: now[0]).identify(
            *signed(ann, "ask", "status", {}, at=_at(now[0] - 1))
        )


def _at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def test_a_person_goes_on_with_a_new_key_and_ends_when_revoked_and_may_be_admitted_again(made: SwarmNode) -> None:
    old = await person(made, "ann", "ask", "decide")
    with pytest.raises(Refused, match="'ann' is admitted already"):
        await person(made, "ann", "ask")
    creds = made.home.person("ann")
    rotated = await made.commands.verbs["rotate"]({"role": "ann"})
    found = json.loads(creds.read_text())
    new = PersonKey(signer_of("person_ann", found["key"].encode(), creds), found["root"])
    assert (rotated["old"], rotated["key"]) == (old.signer.key_id, new.signer.key_id)
    assert "has ended" in await told(made, *signed(old, "ask", "status", {}))
    assert "agents" in await answer(made, *signed(new, "ask", "status", {}))
    await made.commands.verbs["revoke"]({"key": "ann", "reason": "she left"})
    assert "has ended" in await told(made, *signed(new, "ask", "status", {}))
    assert not creds.exists()
    again = await person(made, "ann", "ask")
    assert "needs the right `decide`" in await told(made, *signed(again, "decide", "cancel", {"session": "last"}))
    lines = [one for one in (await made.commands.verbs["keys"]({}))["keys"] if one["role"] == "person_ann"]
    assert [one["rights"] for one in lines] == [["ask", "decide"], ["ask", "decide"], ["ask"]]
    assert [one["in_force"] for one in lines] == [False, False, True]


async def test_who_administers_admits_others_and_the_keyring_holds_what_was_signed(made: SwarmNode) -> None:
    boss = await person(made, "boss", "administer")
    await answer(made, *signed(boss, "administer", "person", {"name": "ann", "rights": ["decide", "ask"]}))
    await answer(made, *signed(boss, "administer", "rotate", {"role": "ann"}))
    await answer(made, *signed(boss, "administer", "revoke", {"key": "person_ann", "reason": "enough"}))
    facts = made.tail.history(made.tail.admission.keyring().session).facts
    admitted, rotated, revoked = (fact.event for fact in facts[-3:])
    assert isinstance(admitted, KeyAdmitted)
    assert isinstance(revoked, KeyRevoked)
    assert (admitted.role, admitted.rights) == ("person_ann", ["ask", "decide"])
    assert all(one.signed and boss.signer.key_id in one.signed.signature for one in (admitted, rotated, revoked))  # type: ignore[attr-defined]


async def test_a_host_that_was_killed_between_a_persons_secrets_and_the_keyring_is_tidied_up_after(
    made: SwarmNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = made.commands.keys.people

    async def killed(event: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(people, "_say", killed)
        with pytest.raises(RuntimeError):
            await person(made, "ann", "ask")
    await people.settle()
    assert not [*(made.home.keys / "people").iterdir()]
    assert made.tail.admission.keyring().current("person_ann") is None
    ann = await person(made, "ann", "ask")
    made.home.person("ann").rename(made.home.person("ann").with_suffix(".next"))
    await people.settle()
    assert made.home.person("ann").exists(), "the keyring had named the key already"
    assert "agents" in await answer(made, *signed(ann, "ask", "status", {}))


async def test_a_decision_stands_in_the_log_as_it_was_signed_and_an_audit_verifies_it(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        ann, session = await person(made, "ann", "ask", "decide"), await made.commands.submit(small_request())
        assert "whole id" in await told(made, *signed(ann, "decide", "cancel", {"session": session[:-3]}))
        long = {"session": session, "x": "x" * MOST_KEPT}
        assert f"keeps {MOST_KEPT}" in await told(made, *signed(ann, "decide", "cancel", long))
        await answer(made, *signed(ann, "decide", "cancel", {"session": session, "reason": "enough"}))
        await answer(made, *signed(ann, "ask", "export", {"session": session, "format": "pt2", "asked_by": "root"}))
        await answer(made, subjects.command("pause"), orjson.dumps({"session": session}))
        await made.commands.verbs["pause"]({"session": session})
        said = [fact.event for fact in made.tail.history(session).facts[1:]]
        begun = await answer(made, *signed(ann, "ask", "train", small_request() | {"asked_by": "root"}))
        genesis = made.tail.history(begun["session"]).state.genesis
        root = made.tail.admission.root
        await made.commands.verbs["revoke"]({"key": "ann", "reason": "she left"})
    assert [one.asked_by for one in said] == ["person_ann", "person_ann", "client", "owner"]  # type: ignore[attr-defined]
    assert genesis is not None
    assert genesis.asked_by == "person_ann"
    found = check_log(Archive(Home(tmp_path), root=root), session, DirectoryBlobs(Home(tmp_path).blobs))
    assert (found.verdict, found.decisions) == ("pass", 2), found.divergences


async def test_what_a_lying_desk_says_of_a_person_fails_the_audit(tmp_path: Path) -> None:
    lies: dict[str, Any] = {}
    async with crew(tmp_path, ()) as made:
        ann, bob = await person(made, "ann", "ask", "decide"), await person(made, "bob", "ask")
        root = made.tail.admission.root
        other = await made.commands.submit(small_request())

        def of(who: PersonKey, verb: str, **body: object) -> SignedCommand:
            right = BODIES[verb].right
            return sign_command(
                who.signer, subjects.signed_command(who.signer.role, right, verb), orjson.dumps(body), root
            )

        async def say(event: Any, session: str = "") -> str:
            session = session or await made.commands.submit(small_request())
            await made.writer("operator", "desk").say(session, [event])
            return session

        lies["nothing is signed"] = await say(CancelRequested(asked_by="person_ann"))
        lies["another session"] = await say(
            CancelRequested(asked_by="person_ann", signed=of(ann, "cancel", session=other))
        )
        lies["another command"] = await say(
            CancelRequested(asked_by="person_ann", signed=of(ann, "pause", session=other)), ""
        )
        mine = await made.commands.submit(small_request())
        lies["another reason"] = await say(
            CancelRequested(asked_by="person_ann", reason="x", signed=of(ann, "cancel", session=mine)), mine
        )
        mine = await made.commands.submit(small_request())
        lies["somebody else"] = await say(
            PauseRequested(asked_by="person_bob", signed=of(ann, "pause", session=mine)), mine
        )
        mine = await made.commands.submit(small_request())
        lies["no right"] = await say(PauseRequested(asked_by="person_bob", signed=of(bob, "pause", session=mine)), mine)
        mine = await made.commands.submit(small_request())
        lies["another file"] = await say(
            ExportRequested(asked_by="person_ann", format="onnx", signed=of(ann, "export", session=mine, format="pt2")),
            mine,
        )
        lies["another failure"] = await say(
            RedriveRequested(asked_by="person_ann", failure="x", signed=of(ann, "redrive", failure="y"))
        )
        mine = await made.commands.submit(small_request())
        lies["another proposal"] = await say(
            ProposalApproved(
                asked_by="person_ann", proposal="x", signed=of(ann, "approve", session=mine, proposal="y")
            ),
            mine,
        )
        mine = await made.commands.submit(small_request())
        lies["approved for rejected"] = await say(
            ProposalApproved(asked_by="person_ann", proposal="x", signed=of(ann, "reject", session=mine, proposal="x")),
            mine,
        )
        mine = await made.commands.submit(small_request())
        forged = of(ann, "cancel", session=mine).model_copy(update={"nonce": 32 * "0"})
        lies["forged"] = await say(CancelRequested(asked_by="person_ann", signed=forged), mine)
        mine = await made.commands.submit(small_request())
        stale = of(ann, "cancel", session=mine)
        await made.commands.verbs["revoke"]({"key": "ann", "reason": "she left"})
        lies["a key that has ended"] = await say(CancelRequested(asked_by="person_ann", signed=stale), mine)
    archive, blobs = Archive(Home(tmp_path), root=root), DirectoryBlobs(Home(tmp_path).blobs)
    assert check_log(archive, other, blobs).verdict == "pass"
    for lie, session in lies.items():
        found = check_log(archive, session, blobs)
        assert found.verdict == "fail", lie
        assert [(one.what, one.position) for one in found.divergences] == [("decision", 2)], lie
