"""`swarm anchor`: writes the ledger's newest note of a session to a place that the swarm's operators cannot change."""

from __future__ import annotations

import click

from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import chosen
from runtime.cli.wording import pairs


@command("anchor")
@session_argument
@click.option("--to", "where", metavar="FILE|git:DIR", required=True, help="A file to append to, or a git repository.")
def anchor(call: Call, *, session: str, where: str) -> None:
    """Keep the signed root of session S elsewhere, so that a log rewritten with every key still betrays itself.

    Later: swarm audit S --anchor FILE
    """
    from bus import notes
    from runtime.audit.anchors import keep, newest_note
    from runtime.log.archive import Archive

    archive = Archive(call.home)
    history = archive.read(chosen(call, session, archive)).history
    note = newest_note(history)
    path, said = keep(note, where), notes.parse(note)
    shown = {
        "session": history.id,
        "path": str(path),
        "events": said.size,
        "root": said.root.hex(),
        "sealed": history.state.sealed is not None,
    }
    call.result(shown, lambda: pairs([("session", history.id), ("anchored", f"{said.size} events"), ("in", str(path))]))
