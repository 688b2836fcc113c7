import pytest

from bus import subjects
from contracts.errors import InvalidInput

SESSION = "00-06b3xhv0000000000000000000"


@pytest.mark.parametrize("lane", ["trainer", "data_manager", "guest_footprint", "guest_my-agent_2"])
def test_a_facts_subject_says_session_lane_and_name_and_nothing_else(lane: str) -> None:
    subject = subjects.fact(SESSION, lane, "window.recorded")
    assert subjects.parse(subject) == (SESSION, lane, "window.recorded")
    assert subjects.matches(subjects.lane(SESSION, lane), subject)
    assert subjects.matches(subjects.session(SESSION), subject)
    assert subjects.matches(subjects.lane_everywhere(lane), subject)
    assert sum(subjects.matches(one, subject) for one in subjects.waking("window.recorded")) == 1


def test_the_grammar_is_the_published_one() -> None:
    assert subjects.fact(SESSION, "trainer", "window.recorded") == f"swarm.ev.00.{SESSION}.trainer.window_recorded"
    assert subjects.fact(SESSION, "guest_a", "x.y") == f"swarm.ev.00.{SESSION}.guest.a.x_y"
    assert subjects.command("train") == "swarm.cmd.train"
    assert subjects.telemetry(SESSION, "resources") == f"swarm.tm.00.{SESSION}.resources"
    assert subjects.heartbeat("trainer", "a1") == "swarm.sys.trainer.a1.hb"
    assert subjects.waking("window.recorded", "trainer") == ("swarm.ev.*.*.trainer.window_recorded",)


@pytest.mark.parametrize("bad", ["a.b", "", "A", "a b", "*", ">", "ä", "a\r\n"])
def test_a_token_that_would_change_the_meaning_of_a_subject_is_refused(bad: str) -> None:
    for make in (subjects.command, subjects.dead_letter, lambda t: subjects.lane(SESSION, t)):
        with pytest.raises(InvalidInput, match="no subject token"):
            make(bad)


@pytest.mark.parametrize(
    "bad", ["window", "window.recorded.twice", "window.was_recorded", "Window.recorded", ".", "a."]
)
def test_an_event_name_is_noun_and_participle(bad: str) -> None:
    with pytest.raises(InvalidInput, match="no event name"):
        subjects.fact(SESSION, "trainer", bad)


@pytest.mark.parametrize(
    "bad",
    [
        "swarm.ev.00.00-a.trainer",
        "swarm.ev.01.00-a.trainer.x_y",
        "swarm.ev.00.00-a.guest.x_y",
        "swarm.ev.00.00-a.trainer.more.x_y",
        "swarm.tm.00.00-a.trainer.x_y",
        "swarm.ev.00.00-a.trainer.x",
        "swarm.ev.00.00-a.guest_b.x_y",
    ],
)
def test_what_no_writer_would_make_is_not_parsed(bad: str) -> None:
    with pytest.raises(InvalidInput):
        subjects.parse(bad)


def test_a_lane_called_guest_alone_is_refused_because_it_would_hold_every_guest() -> None:
    with pytest.raises(InvalidInput, match="no lane"):
        subjects.lane(SESSION, "guest")


def test_filters_cover_what_nats_would_cover() -> None:
    assert subjects.matches("a.*.c", "a.b.c")
    assert subjects.matches("a.>", "a.b.c")
    assert not subjects.matches("a.>", "a")
    assert not subjects.matches("a.*", "a.b.c")
    assert not subjects.matches("a.b.c", "a.b")


def test_the_stream_of_a_subject_follows_its_partition() -> None:
    assert subjects.stream(subjects.lane("07-x", "trainer")) == "EV_07"
    assert subjects.stream(subjects.EVERYTHING) == "EV_00"
    assert subjects.stream(subjects.TELEMETRY, "03") == "TM_03"
    assert subjects.stream(subjects.dead_letter("trainer")) == "DLQ"
    with pytest.raises(InvalidInput, match="is stored"):
        subjects.stream("swarm.cmd.train")
