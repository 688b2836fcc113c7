"""`swarm audit`: a verdict on a session that needs no trust in whoever ran it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import SwarmError
from runtime.cli import repeat
from runtime.cli.call import Call, command
from runtime.cli.named import complete
from runtime.cli.reach import chosen, reader, up
from runtime.cli.wording import pairs

if TYPE_CHECKING:
    from runtime.audit import Verdict

NEGATIVE = 3
_TRIES = 5


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
@click.option(
    "--anchor", "anchors", metavar="FILE", multiple=True, help="Signed notes kept elsewhere: swarm anchor S --to FILE"
)
def audit(call: Call, *, session: str, mode: str, root: str, anchors: tuple[str, ...], **again: Any) -> int:
    """Verify the log of session S from its file: every record, signature and chain, the ledger's trees, the seal.

    The other modes do that too, and then compute spans of the training again and compare every bit. The path of an
    existing file is a bundle; it is verified from its own bytes, without a home. Exit code 0 when everything holds, 3
    when something does not, or cannot be compared on this machine.
    """
    from runtime.audit.anchors import read_anchors

    notes = read_anchors(map(Path, anchors)) if anchors else None
    found = _bundled(Path(session), root, notes) if Path(session).is_file() else _verdict(call, session, root, notes)
    if mode != "log" and found.session:
        found = repeat.repeated(call, found, root, mode, **again)
    call.result(found.as_json(), lambda: _page(found))
    return 0 if found.verdict == "pass" else NEGATIVE


def _bundled(path: Path, root: str, notes: Sequence[str] | None) -> Verdict:
    from runtime import audit as audits

    return audits.bundle(path.absolute(), root=root, anchors=notes)


def _verdict(call: Call, name: str, root: str, notes: Sequence[str] | None) -> Verdict:
    from bus.blobs import DirectoryBlobs
    from runtime import audit as audits
    from runtime.archive import Archive

    session = chosen(call, name, Archive(call.home))
    running = call.home.host() is not None and up(call)
    for remaining in reversed(range(_TRIES)):
        at_least = call.wait(_held(call, session)) if running else 0
        blobs = DirectoryBlobs(call.home.blobs)
        found = audits.log(Archive(call.home, root), session, blobs, at_least=at_least, anchors=notes)
        # A host that writes just now leaves half a record for a moment.
        if not (running and remaining and any(one.what == "torn" for one in found.divergences)):
            break
        time.sleep(0.1)
    return found


async def _held(call: Call, session: str) -> int:
    """How many events the running swarm says there are; 0 when it cannot say."""
    try:
        async with reader(call) as found:
            return int((await found.session(session))["events"])
    except SwarmError as error:
        call.note(f"The swarm was not asked how long the session is: {error.message}")
        return 0


def _page(found: Verdict) -> str:
    colour = {"pass": "green", "fail": "red"}.get(found.verdict, "yellow")
    rows = [
        ("session", found.session),
        ("verdict", click.style(found.verdict.upper(), fg=colour, bold=True)),
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
    return f"{click.style(one.what + ':', fg='red', bold=True)} {place}{one.message}"
