"""What an audit finds, in any mode: values, and their form for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

UNANCHORED = "unanchored"


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that does not hold: its place in the session (0 when it has none), in the stream, and a sentence."""

    position: int
    seq: int
    what: str
    message: str

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"position": self.position, "seq": self.seq, "what": self.what, "message": self.message}


@dataclass(frozen=True)
class Verdict:
    """What an audit found; `unchecked` says what it could not or did not look at."""

    session: str
    verdict: Literal["pass", "fail", "not-comparable"]
    mode: str = "log"
    bundle: str = ""
    events: int = 0
    lane_heads: dict[str, str] = field(default_factory=dict)
    signatures: int = 0
    checkpoints: int = 0
    signed_events: int = 0
    """How many of the events the newest root covers that the ledger signed."""
    blobs: int = 0
    anchors: int = 0
    root: str = UNANCHORED
    sealed: str | None = None
    spans_checked: int = 0
    spans_total: int = 0
    unchecked: tuple[str, ...] = ()
    divergences: tuple[Divergence, ...] = ()

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Self:
        """The verdict that says this; of several divergences the first alone is known then."""
        names = {one.name for one in fields(cls)}
        first = data["first_divergence"]
        told = {name: value for name, value in data.items() if name in names and name != "divergences"}
        told |= {"bundle": data["bundle"] or "", "unchecked": tuple(data["unchecked"])}
        divergence = Divergence(*(first[name] for name in ("position", "seq", "what", "message"))) if first else None
        return cls(**told, divergences=(divergence,) if divergence else ())

    def as_json(self) -> dict[str, Any]:
        """Plain data, with the keys that programs rely on."""
        return {
            "session": self.session,
            "mode": self.mode,
            "bundle": self.bundle or None,
            "verdict": self.verdict,
            "events": self.events,
            "lanes": len(self.lane_heads),
            "lane_heads": self.lane_heads,
            "signatures": self.signatures,
            "checkpoints": self.checkpoints,
            "signed_events": self.signed_events,
            "blobs": self.blobs,
            "anchors": self.anchors,
            "root": self.root,
            "sealed": self.sealed,
            "spans_checked": self.spans_checked,
            "spans_total": self.spans_total,
            "unchecked": list(self.unchecked),
            "first_divergence": self.divergences[0].as_json() if self.divergences else None,
            "divergences": len(self.divergences),
        }
