"""Whether a control metric came out again bit for bit. Pure: it runs in the validator, which never loads user code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Control = Literal["reproduced", "differs", "not-comparable"]


class ControlComparison(NamedTuple):
    """Whether the control metric came out the same, and what there is to say about it."""

    control: Control
    about: dict[str, Any]


def differing(recorded: Mapping[str, str], computed: Mapping[str, str]) -> dict[str, list[str]]:
    """The recorded values that were not computed again, each with what was; exact floats as hex."""
    return {name: [text, computed.get(name, "")] for name, text in recorded.items() if computed.get(name) != text}


def compared(
    recorded: Mapping[str, str],
    wrong: Mapping[str, list[str]],
    claim: Mapping[str, Any],
    here: Mapping[str, Any],
) -> ControlComparison:
    """Equal bits are proof enough; only for what is `wrong` it counts whether this machine could have given the same.

    `here` is what `runtime.replay.reexecute.identity` answers; it is not looked at when nothing is wrong.
    """
    if not recorded:
        return ControlComparison("not-comparable", {"reason": "no control metric was recorded for this split and step"})
    if not wrong:
        return ControlComparison("reproduced", {"values": len(recorded)})
    about: dict[str, Any] = {"recorded_and_computed": dict(wrong)}
    if claim["resolved"]["profile"] != "exact":
        return ControlComparison("not-comparable", about | {"reason": "the session is not deterministic"})
    if claim["engine_bits"] != here["engine_bits"]:
        reason = f"engine bits {claim['engine_bits']}, here {here['engine_bits']}"
        return ControlComparison("not-comparable", about | {"reason": reason})
    if claim["fingerprint"] != here["fingerprint"]:
        theirs, ours = claim["families"], here["families"]
        families = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        return ControlComparison(
            "not-comparable", about | {"reason": "another numeric fingerprint", "families": families}
        )
    return ControlComparison("differs", about)
