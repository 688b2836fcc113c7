"""`swarm audit`: a verdict on a session that needs no trust in the people who ran it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.cli import repeat
from runtime.cli.call import Call, command
from runtime.cli.in_swarm import audited, refuse_own_options
from runtime.cli.looking import looking
from runtime.cli.named import complete
from runtime.cli.verdict import page
from runtime.cli.wait import NEGATIVE

if TYPE_CHECKING:
    pass


def _fingerprint(ctx: click.Context, param: click.Parameter, value: str) -> str:
    given = value.strip().lower()
    if given and not re.fullmatch(r"[0-9a-f]{64}", given):
        raise click.BadParameter(f"{value!r} is not the 64 hex digits of a root key's fingerprint.")
    return given


@command("audit")
@click.argument("session", metavar="S|BUNDLE", shell_complete=complete)
@click.option(
    "--mode",
    type=click.Choice(["log", "spot", "full", "bisect"]),
    default="log",
    show_default=True,
    help="Verify the log; compute some spans again, or all; find the first step that differs.",
)
@repeat.options
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
    call: Call, *, session: str, mode: str, root: str, in_swarm: bool, anchors: tuple[str, ...], **again: Any
) -> int:
    """Verify the log of session S from its file: every record, the chains and signatures, the ledger's trees, the seal.

    The other modes do that too, and then compute spans of the training again and compare every bit. The path of an
    existing file is a bundle; it is verified from its own bytes, without a home. Exit code 0 when everything holds, 3
    when something does not, or cannot be compared on this machine. An audit writes nothing; with --in-swarm it is
    a session that every trainer of the swarm takes part in, and that ends with the same verdict.
    """
    if in_swarm:
        refuse_own_options(root, anchors, again)
        return audited(call, session, mode, again["segments"], again["seed"])
    from runtime.audit.anchors import read_anchors

    notes = read_anchors(map(Path, anchors)) if anchors else None
    with looking(call, session, root, notes, again=mode != "log") as (look, likely):
        found = look()[0] if mode == "log" else call.wait(repeat.repeated(call, look, likely, mode, **again))
    call.result(found.as_json(), lambda: page(found))
    return 0 if found.verdict == "pass" else NEGATIVE
