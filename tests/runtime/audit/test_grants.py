"""A claim cites a grant that its session had, as far as the logs of the queue are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.blobs import DirectoryBlobs
from contracts.envelope import Fact
from contracts.event import Event
from contracts.ids import new_uuid
from contracts.queue import (
    QueueClosed,
    QueueLimited,
    QueueOpened,
    SessionGranted,
    SessionQueued,
    SessionReturned,
    queue_session,
)
from contracts.trainer import TrainingResumed
from runtime import audit
from runtime.audit import Verdict
from runtime.log.archive import Archive
from tests.runtime.recorded_home import RecordedHome, claimed

OPENED = (QueueOpened(keyring="0" * 64), QueueLimited(limit=1))


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def queued(recorded: RecordedHome, *events: Event, number: int = 0) -> list[Fact]:
    return recorded.say(queue_session(recorded.fingerprint, number=number), "operator", *events)


def citing(recorded: RecordedHome, session: str, grant: str | None) -> Verdict:
    recorded.say(session, "trainer", claimed().model_copy(update={"grant": grant}))
    return audit.check_log(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs))


def test_a_claim_that_cites_what_granted_it_a_slot_passes(recorded: RecordedHome) -> None:
    session = recorded.requested()
    grant = queued(recorded, *OPENED, SessionQueued(session=session), SessionGranted(session=session))[-1]
    queued(recorded, QueueClosed())
    queued(recorded, *OPENED, number=1)
    assert citing(recorded, session, grant.id).verdict == "pass"
    recorded.say(session, "trainer", TrainingResumed(segment=1, step=0, grant="another"))
    queued(recorded, QueueLimited(limit=2), number=1)
    found = audit.check_log(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs))
    assert [(one.what, one.position) for one in found.divergences] == [("grant", 3)]
    assert citing(recorded, recorded.requested(), None).verdict == "pass"


@pytest.mark.parametrize("what", ["unknown", "another's", "no grant", "not allowed", "too late"])
def test_a_grant_that_its_session_did_not_have_fails_and_names_the_claim(recorded: RecordedHome, what: str) -> None:
    session, other = recorded.requested(), recorded.requested()
    both = (SessionQueued(session=session), SessionQueued(session=other))
    facts = queued(recorded, *OPENED, *both, SessionGranted(session=other), SessionGranted(session=session))
    cited = {"unknown": str(new_uuid()), "another's": facts[4].id, "no grant": facts[2].id, "not allowed": facts[5].id}
    if what == "too late":
        recorded.say(session, "trainer", claimed().model_copy(update={"grant": "late"}))
        ended = SessionReturned(session=other, reason="ended")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("contracts.ids.new_uuid", iter(("ended", "late")).__next__)
            queued(recorded, ended, SessionGranted(session=session))
    else:
        recorded.say(session, "trainer", claimed().model_copy(update={"grant": cited[what]}))
        queued(recorded, SessionReturned(session=other, reason="ended"))
    found = audit.check_log(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs))
    assert [(one.what, one.position) for one in found.divergences] == [("grant", 2)]


def test_where_no_log_of_a_queue_reaches_beyond_a_claim_its_grant_is_not_judged(recorded: RecordedHome) -> None:
    assert citing(recorded, recorded.requested(), "in-a-log-that-is-not-here").verdict == "pass"
    queued(recorded, *OPENED)
    assert citing(recorded, recorded.requested(), "after-the-end-of-the-copy").verdict == "pass"


def test_a_queue_is_no_session_that_is_listed(recorded: RecordedHome) -> None:
    session = recorded.requested()
    (first, *_) = queued(recorded, *OPENED)
    assert Archive(recorded.home).ids() == [session]
    assert Archive(recorded.home).history(first.envelope.subject).size == 2
