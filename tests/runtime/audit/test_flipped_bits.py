"""A bit that flips in the memory or on the disk of who trains is found by a full audit, or has changed nothing."""

import asyncio

from benchmarks.corruption import counted, run_flips
from benchmarks.faults_cases.flipped import PLACES, Change, Outcome
from contracts.findings import SpanDivergence
from runtime.replay.verdict import LocatedDivergence


def test_flipped_bits_are_located_or_change_nothing():
    """Every place twice; the same seed gives the same flips and verdicts, whoever plants them."""
    told: list[Outcome] = []
    asyncio.run(run_flips(7, range(2 * len(PLACES)), told.extend))
    figures = counted(told)
    assert figures["missed"] == 0, [one for one in told if one.verdict == "missed"]
    assert figures["located"] + figures["same"] + figures["stopped"] == figures["flips"] == 2 * len(PLACES)
    assert all(figures[f"located_{place}"] >= 1 for place in PLACES), figures


def test_an_audit_that_names_another_event_or_field_has_missed_the_flip():
    """What is wrong behind the first event that differs, or in a field that does not, is a consequence or an error."""
    changed = Change(position=5, name="window.recorded", fields=("losses", "weights_digest"))
    found = SpanDivergence(
        name="window.recorded", field="losses", first=0, last=10, recorded="a", computed="b", place=5, seq=5, segment=1
    )

    def named(position: int = 5, what: str = "window.recorded", field: str = "losses") -> bool:
        about = found.model_copy(update={"field": field})
        return changed.is_at(LocatedDivergence(position, position, what, "", about=about, span=1, line=1))

    assert named()
    assert not named(position=6)
    assert not named(what="checkpoint.written")
    assert not named(field="learning_rate")
