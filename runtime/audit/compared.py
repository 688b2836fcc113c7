"""The first field in which what was computed again is not what was recorded. Pure."""

from __future__ import annotations

import base64
from collections.abc import Container, Iterable, Mapping
from typing import Any

from contracts.event import Event
from contracts.trainer import CheckpointWritten, ControlEvaluated, TrainingCompleted, WindowRecorded

ORDER = (
    "segment",
    "last",
    "index_digest",
    "learning_rate",
    "losses",
    "gradient_norm",
    "layer_names",
    "layer_figures",
    "scalars",
    "finite",
    "values",
    "state_root",
    "weights_digest",
)
"""Causes before their effects: the first field of these that differs says most."""

INCIDENTAL = frozenset({"reason"})
"""Why a checkpoint was kept is no part of what was computed: a resumed run may keep the same state for another."""

_LONGEST = 200


def difference(recorded: Mapping[str, Any], computed: Event) -> dict[str, Any] | None:
    """Where a record, in its JSON form, is not what was computed: JSON text compares floats by their bits, NaN too."""
    said, found = recorded["data"], computed.model_dump(mode="json")
    field = first_field(said, found)
    if field is None:
        return None
    return diverged(recorded, field, said.get(field), found.get(field)) | _detail(
        recorded, field, said.get(field), found.get(field)
    )


def first_field(said: Mapping[str, Any], found: Mapping[str, Any], besides: Container[str] = INCIDENTAL) -> str | None:
    """The first field, causes before effects, in which two events in their JSON form differ."""
    differing = (one for one in said.keys() | found.keys() if one not in besides and said.get(one) != found.get(one))
    return min(differing, key=_rank, default=None)


def diverged(recorded: Mapping[str, Any], field: str, said: Any, found: Any) -> dict[str, Any]:
    """A divergence as plain data."""
    about = {name: recorded[name] for name in ("name", "first", "last", "place", "seq")}
    about |= {name: recorded["data"][name] for name in ("blob",) if name in recorded["data"]}
    segment = recorded["data"].get("segment")
    return about | {"segment": segment, "field": field, "recorded": _short(said), "computed": _short(found)}


def differing_step(first: int, said: str, found: str) -> int:
    """The attempt after which step has the first loss that differs, by its bits; -1 when none does."""
    ours, theirs = base64.b64decode(found), base64.b64decode(said)
    for at in range(max(len(ours), len(theirs)) // 4):
        if ours[4 * at : 4 * at + 4] != theirs[4 * at : 4 * at + 4]:
            return first + at
    return -1


def ending(said: TrainingCompleted, step: int, *, finished: bool, found: Mapping[str, Any]) -> str:
    """What of a session's own account of its end is not so; nothing when all is."""
    if said.step != step or not finished:
        truth = f"at step {step}" if finished else f"later than at step {step}"
        return f"training was completed at step {said.step}, and by its own rules it ends {truth}"
    wrong = next((name for name, value in found.items() if getattr(said, name) != value), "")
    return f"{wrong} of the end is {getattr(said, wrong)!r}, computed {found[wrong]!r}" if wrong else ""


def by_place(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Records by what makes them the same one: their name, and the step at which they are computed."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for one in records:
        at = one["first"] if one["name"] == WindowRecorded.wire else one["last"]
        found.setdefault((one["name"], at), []).append(one)
    return found


def key(event: WindowRecorded | ControlEvaluated | CheckpointWritten) -> tuple[str, int]:
    """The place of what was computed, as in `by_place`."""
    return event.wire, event.first if isinstance(event, WindowRecorded) else event.step


def _rank(field: str) -> tuple[int, str]:
    return (ORDER.index(field) if field in ORDER else len(ORDER), field)


def _detail(recorded: Mapping[str, Any], field: str, said: Any, found: Any) -> dict[str, Any]:
    if field == "losses" and isinstance(said, str) and isinstance(found, str):
        return {"step": differing_step(recorded["first"], said, found)}
    if field in ("values", "scalars") and isinstance(said, dict) and isinstance(found, dict):
        name = next((one for one in sorted(said.keys() | found.keys()) if said.get(one) != found.get(one)), "")
        return {"field": f"{field}.{name}", "recorded": _short(said.get(name)), "computed": _short(found.get(name))}
    return {}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
