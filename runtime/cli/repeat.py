"""The part of `swarm audit` that computes spans again: from a verdict on the log to one on what it says."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.cli.call import Call
from runtime.cli.output import place
from runtime.cli.reach import opened
from runtime.jobs.profiles import torch_profile

if TYPE_CHECKING:
    from runtime.audit import Verdict
    from runtime.cli.looking import Look
    from runtime.replay.material import AuditSubject

OPTIONS = (
    click.option(
        "--segments",
        metavar="K",
        type=click.IntRange(min=1),
        default=5,
        show_default=True,
        help="How many spans `spot` draws.",
    ),
    click.option(
        "--seed", metavar="N", type=click.IntRange(min=0), help="What `spot` draws by (default: a new one, told)."
    ),
    click.option(
        "--workers", metavar="N", type=click.IntRange(min=1), help="Spans computed at a time (default: by cores)."
    ),
    click.option("--trust-code", is_flag=True, help="Run the code of workloads that came with the session."),
    click.option("--fresh", is_flag=True, help="Compute again what an interrupted audit had found."),
)


SHARES = ("0.01", "0.1", "0.5")
"""Shares of wrong spans of which a page tells; `--json` has more."""


def options(function: Any) -> Any:
    """The options of the modes that compute."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


async def repeated(call: Call, look: Look, likely: Mapping[str, Any], mode: str, **given: Any) -> Verdict:
    """The verdict on the log, then after spans were computed again; children get ready while the log is verified."""
    import asyncio

    from runtime.jobs.children import Children

    children = Children()
    warming = asyncio.create_task(children.warm(torch_profile(**likely)))
    try:
        log, material = await asyncio.to_thread(look)
        from runtime.audit.repeated import repeat
        from runtime.replay.docket import AuditOptions
        from runtime.replay.judged import FAILS, uncomputed

        seed = given.pop("seed")
        workers = given.pop("workers") or 0
        asked = AuditOptions(mode=mode, seed=secrets.randbits(32) if seed is None else seed, workers=workers, **given)  # type: ignore[arg-type]
        if mode == "spot":
            call.note(f"Spans are drawn by seed {asked.seed}.")
        if material is None:
            return uncomputed(log, asked.mode, FAILS) if log.session else log
        return await repeat(log, material, asked, children, call.note)
    finally:
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
        await children.close()


def rebuilt(call: Call, session: str, step: int, out: str, *, trust: bool) -> dict[str, Any]:
    """Write the weights at a step; what `swarm replay` says of them."""
    with opened(call, session) as material:
        return call.wait(_rebuilt(material, step, place(out), trust=trust))


async def _rebuilt(material: AuditSubject, step: int, out: Path, *, trust: bool) -> dict[str, Any]:
    from runtime.jobs.children import Children
    from runtime.replay.rebuilt import rebuilt as weights

    children = Children()
    try:
        return await weights(material, step, out, children, trust_code=trust)
    finally:
        await children.close()


def rows(found: Any) -> Sequence[tuple[str, str]]:
    """What a page says of the spans; nothing when none were asked for."""
    if found.mode == "log":
        return []
    told = [("spans", f"{found.spans_checked} of {found.spans_total} computed again, {found.steps_checked} steps")]
    if found.spans_resumed:
        told.append(
            ("resumed", f"{found.spans_resumed} of them in an earlier run of this audit, which was interrupted")
        )
    if found.exports_checked:
        told.append(("exports", f"{found.exports_checked} made again, byte for byte compared"))
    if found.detection:
        chances = [
            f"if {float(rate):.0%} of all spans were wrong, one of these would be with a chance of {chance:.1%}"
            for rate, chance in found.detection.items()
            if rate in SHARES
        ]
        chances.append(
            f"if a single span were wrong, it would be one of these with a chance of {found.detection['one']:.1%}"
        )
        told += [("seed", str(found.seed)), *(("chance", one) for one in chances)]
    if found.mode == "bisect" and found.verdict == "pass":
        told.append(("located", "no step differs: everything that was computed again came out as recorded"))
    for one in (found.located or {}).get("sentences", ()):
        told.append(("located", one))
    return told
