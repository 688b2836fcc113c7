"""`swarm bundle`: a sealed session as one file that can be verified without a swarm and without this software."""

from __future__ import annotations

import click

from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.output import place
from runtime.cli.reach import chosen
from runtime.cli.wording import pairs


@command("bundle")
@session_argument
@click.option("-o", "--output", "out", metavar="FILE", required=True, help="Where to write.")
@click.option("--checkpoints", is_flag=True, help="Put in every checkpoint that is kept.")
@click.option("--dataset", is_flag=True, help="Put in the prepared rows.")
@click.option("--exports", is_flag=True, help="Put in the exported models.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def bundle(call: Call, *, session: str, out: str, checkpoints: bool, dataset: bool, exports: bool, force: bool) -> None:
    """Write session S as one file: its log and keyring, the ledger's notes, schemas, manifest, sources, verifier.

    The same session and the same choice give the same bytes. `swarm audit FILE` verifies it, and so does
    `python verify_bundle.py FILE` with the program that lies inside.
    """
    from bus.blobs import DirectoryBlobs
    from runtime.audit.bundling import make
    from runtime.log.archive import Archive

    path = place(out, force=force)
    archive = Archive(call.home)
    asked = {"checkpoints": checkpoints, "dataset": dataset, "exports": exports}
    wanted = [name for name, given in asked.items() if given]
    made = make(archive, chosen(call, session, archive), DirectoryBlobs(call.home.blobs), path, wanted=wanted)
    shown = {
        "session": made.session,
        "path": str(made.path),
        "digest": made.digest,
        "bytes": made.bytes,
        "sections": list(made.sections),
    }
    if made.older:
        call.note("The program inside is older than this software; what it does not know, `swarm audit FILE` does.")
    rows = [("bundle", str(path)), ("session", made.session), ("bytes", str(made.bytes)), ("sha256", made.digest)]
    call.result(shown, lambda: pairs([*rows, ("holds", " ".join(made.sections) or "no sections")]))
