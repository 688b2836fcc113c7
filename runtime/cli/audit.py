"""`swarm audit`: a verdict on a session that needs no trust in the people who ran it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from runtime.api import evidence
from runtime.api.following import follow
from runtime.cli.call import Call, Json, command, complete_session
from runtime.cli.exit_codes import NEGATIVE, session_exit_code
from runtime.cli.output import cell, pairs, style, verdict_text

if TYPE_CHECKING:
    from contracts.findings import Mode
    from runtime.audit import Verdict


SHARES = ("0.01", "0.1", "0.5")
"""Shares of wrong spans of which a page tells; `--json` has more."""


def _fingerprint(ctx: click.Context, param: click.Parameter, value: str) -> str:
    given = value.strip().lower()
    if given and not re.fullmatch(r"[0-9a-f]{64}", given):
        raise click.BadParameter(f"{value!r} is not the 64 hex digits of a root key's fingerprint.")
    return given


@command("audit")
@click.argument("session", metavar="S|BUNDLE", shell_complete=complete_session)
@click.option(
    "--mode",
    type=click.Choice(["log", "spot", "full", "bisect"]),
    default="log",
    show_default=True,
    help="Verify the log; compute some spans again, or all; find the first step that differs.",
)
@click.option(
    "--segments",
    metavar="K",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many spans `spot` draws.",
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), help="What `spot` draws by (default: a new one, told)."
)
@click.option(
    "--workers", metavar="N", type=click.IntRange(min=1), help="Spans computed at a time (default: by cores)."
)
@click.option("--trust-code", is_flag=True, help="Run the code of workloads that came with the session.")
@click.option("--fresh", is_flag=True, help="Compute again what an interrupted audit had found.")
@click.option(
    "--root",
    metavar="FP",
    default="",
    callback=_fingerprint,
    help="The root key's fingerprint to trust (default: the home's pin).",
)
@click.option("--in-swarm", is_flag=True, help="Let the swarm do it, as a session that is recorded.")
@click.option(
    "--anchor", "anchors", metavar="FILE", multiple=True, help="Signed notes kept elsewhere: swarm anchor S --to FILE"
)
def audit(
    call: Call, *, session: str, mode: Mode, root: str, in_swarm: bool, anchors: tuple[str, ...], **again: Any
) -> int:
    """Verify the log of session S from its file: every record, the chains and signatures, the ledger's trees, the seal.

    The other modes do that too, and then compute spans of the training again and compare every bit. The path of an
    existing file is a bundle; it is verified from its own bytes, without a home. Exit code 0 when everything holds, 3
    when something does not, or cannot be compared on this machine. An audit writes nothing; with --in-swarm it is
    a session that every trainer of the swarm takes part in, and that ends with the same verdict.
    """
    if in_swarm:
        # Trainers trust their homes' pins and codes, and share out their cores.
        own = {"--root": root, "--anchor": anchors, "--workers": again["workers"]}
        own |= {"--trust-code": again["trust_code"], "--fresh": again["fresh"]}
        if wrong := [name for name, value in own.items() if value]:
            raise click.UsageError(f"{wrong[0]} is for an audit without a swarm; leave it or --in-swarm out.")
        return _audit_in_swarm(call, session, mode, again["segments"], again["seed"])
    verdict = evidence.audit(call, session, evidence.AuditWish(mode, **again), root=root, anchors=anchors)
    call.result(verdict.as_json(), lambda: verdict_page(verdict))
    return 0 if verdict.verdict == "pass" else NEGATIVE


def span_rows(verdict: Any) -> Sequence[tuple[str, str]]:
    """What a page says of the spans; nothing when none were asked for."""
    if verdict.mode == "log":
        return []
    rows = [
        ("spans", f"{verdict.spans_checked} of {verdict.spans_total} computed again, {verdict.steps_checked} steps")
    ]
    if verdict.spans_resumed:
        rows.append(
            ("resumed", f"{verdict.spans_resumed} of them in an earlier run of this audit, which was interrupted")
        )
    if verdict.exports_checked:
        rows.append(("exports", f"{verdict.exports_checked} made again, byte for byte compared"))
    if verdict.detection:
        chances = [
            f"if {float(rate):.0%} of all spans were wrong, one of these would be with a chance of {chance:.1%}"
            for rate, chance in verdict.detection.items()
            if rate in SHARES
        ]
        chances.append(
            f"if a single span were wrong, it would be one of these with a chance of {verdict.detection['one']:.1%}"
        )
        rows += [("seed", str(verdict.seed)), *(("chance", chance) for chance in chances)]
    if verdict.mode == "bisect" and verdict.verdict == "pass":
        rows.append(("located", "no step differs: everything that was computed again came out as recorded"))
    return rows + [("located", sentence) for sentence in (verdict.located.sentences if verdict.located else ())]


def _audit_in_swarm(call: Call, name: str, mode: Mode, segments: int, seed: int | None) -> int:
    """Have the session audited, and answer as an audit without a swarm does, with the audit's own session besides."""

    async def audited() -> tuple[Json, Json | None]:
        async with call.swarm() as swarm:
            answer = await swarm.audit(name, mode=mode, segments=segments, seed=seed)
            own = str(answer["session"])
            call.note(f"Session {own}" + (f", spans are drawn by seed {answer['seed']}" if mode == "spot" else ""))
            return await follow(call, swarm, own, None), await swarm.verdict(own)

    def page(verdict: Json) -> str:
        from contracts.findings import AuditFindings
        from runtime.audit import Verdict
        from runtime.replay.verdict import ReplayVerdict

        told = AuditFindings.model_validate(verdict)
        kind = ReplayVerdict if "steps_checked" in told.model_fields_set else Verdict
        return f"{verdict_page(kind.of_findings(told))}\nThe audit is session {summary['session']}."

    summary, verdict = call.wait(audited())
    if verdict is None:
        problem = summary["problem"] or {}
        call.result(summary, lambda: f"The audit came to no verdict: {problem.get('message', '')}")
    else:
        call.result(verdict | {"audit": summary["session"]}, lambda: page(verdict))
    return session_exit_code(summary)


def verdict_page(verdict: Verdict) -> str:
    """A verdict as the text that `swarm audit` prints."""
    rows = [
        ("session", verdict.session),
        ("verdict", verdict_text(verdict.verdict)),
        ("events", f"{verdict.events} in {len(verdict.lane_heads)} lanes, {verdict.signatures} signatures"),
        ("ledger", f"{verdict.checkpoints} signed roots computed again, over {verdict.signed_events} events"),
        ("sealed", verdict.sealed or "not yet"),
        ("blobs", f"{verdict.blobs} compared with their digests"),
        ("root", verdict.root),
    ]
    if verdict.anchors:
        rows.append(("anchors", f"{verdict.anchors} notes from elsewhere"))
    rows += span_rows(verdict)
    rows += [("unchecked", what) for what in verdict.unchecked]
    lines = [pairs(rows)]
    for divergence in verdict.divergences[:10]:
        place = f"event {divergence.position}, " if divergence.position else ""
        lines.append(f"{style(divergence.what + ':', fg='red', bold=True)} {place}{cell(divergence.message)}")
    return "\n".join(lines)
