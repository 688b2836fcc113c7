"""A verdict as text: what was looked at, what was not, and the first places that do not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.cli import repeat
from runtime.cli.terminal import cell, style
from runtime.cli.wording import pairs, verdict

if TYPE_CHECKING:
    from runtime.audit import Verdict


def page(found: Verdict) -> str:
    """A verdict as the text that `swarm audit` prints."""
    rows = [
        ("session", found.session),
        ("verdict", verdict(found.verdict)),
        ("events", f"{found.events} in {len(found.lane_heads)} lanes, {found.signatures} signatures"),
        ("ledger", f"{found.checkpoints} signed roots computed again, over {found.signed_events} events"),
        ("sealed", found.sealed or "not yet"),
        ("blobs", f"{found.blobs} compared with their digests"),
        ("root", found.root),
    ]
    if found.anchors:
        rows.append(("anchors", f"{found.anchors} notes from elsewhere"))
    rows += repeat.rows(found)
    rows += [("unchecked", told) for told in found.unchecked]
    return "\n".join([pairs(rows), *(_shown(one) for one in found.divergences[:10])])


def _shown(one: Any) -> str:
    place = f"event {one.position}, " if one.position else ""
    return f"{style(one.what + ':', fg='red', bold=True)} {place}{cell(one.message)}"
