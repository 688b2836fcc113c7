"""`swarm audit`: a verdict on a session that needs no trust in the people who ran it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.api import evidence
from runtime.api.following import follow
from runtime.cli.call import Call, Json, command, complete_session
from runtime.cli.exit_codes import NEGATIVE, session_exit_code
from runtime.cli.pages import answer_page, page_option

if TYPE_CHECKING:
    from contracts.findings import Mode
    from contracts.replies import SessionReply
    from runtime.views.blocks import Page


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
@page_option
def audit(
    call: Call,
    *,
    session: str,
    mode: Mode,
    root: str,
    in_swarm: bool,
    anchors: tuple[str, ...],
    out: Path | None,
    **again: Any,
) -> int:
    """Verify the log of session S from its file: every record, the chains and signatures, the ledger's trees, the seal.

    The other modes do that too, and then compute spans of the training again and compare every bit. The path of an
    existing file is a bundle; it is verified from its own bytes, without a home. Exit code 0 when everything holds, 3
    when something does not, or cannot be compared on this machine. An audit leaves nothing behind: what it has found
    is kept until its end (in work/audits of the home, or beside the bundle as FILE.audit), from where it goes on after
    an interruption. With --in-swarm it is a session that every trainer of the swarm takes part in, and that ends with
    the same verdict.
    """
    if in_swarm:
        # Trainers trust their homes' pins and codes, and share out their cores.
        own = {"--root": root, "--anchor": anchors, "--workers": again["workers"]}
        own |= {"--trust-code": again["trust_code"], "--fresh": again["fresh"]}
        if wrong := [name for name, value in own.items() if value]:
            raise click.UsageError(f"{wrong[0]} is for an audit without a swarm; leave it or --in-swarm out.")
        return _audit_in_swarm(call, session, mode, again["segments"], again["seed"], out)
    verdict = evidence.audit(call, session, evidence.AuditWish(mode, **again), root=root, anchors=anchors)

    def page() -> Page:
        from runtime.views.answer_pages import verdict_page

        return verdict_page(verdict)

    answer_page(call, verdict.as_json(), page, out)
    return 0 if verdict.verdict == "pass" else NEGATIVE


def _audit_in_swarm(call: Call, name: str, mode: Mode, segments: int, seed: int | None, out: Path | None) -> int:
    """Have the session audited, and answer as an audit without a swarm does, with the audit's own session besides."""

    async def audited() -> tuple[SessionReply, Json | None]:
        async with call.swarm() as swarm:
            answer = await swarm.audit(name, mode=mode, segments=segments, seed=seed)
            own = str(answer["session"])
            call.note(f"Session {own}" + (f", spans are drawn by seed {answer['seed']}" if mode == "spot" else ""))
            return await follow(call, swarm, own, None), await swarm.verdict(own)

    def page(verdict: Json) -> Page:
        from contracts.findings import AuditFindings
        from runtime.audit import Verdict
        from runtime.replay.verdict import ReplayVerdict
        from runtime.views.answer_pages import verdict_page

        told = AuditFindings.model_validate(verdict)
        kind = ReplayVerdict if "steps_checked" in told.model_fields_set else Verdict
        return verdict_page(kind.of_findings(told), summary["session"])

    summary, verdict = call.wait(audited())
    if verdict is None:
        problem = summary["problem"]
        call.result(summary, lambda: f"The audit came to no verdict: {problem['message'] if problem else ''}")
    else:
        answer_page(call, verdict | {"audit": summary["session"]}, lambda: page(verdict), out)
    return session_exit_code(summary)
