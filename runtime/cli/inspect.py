"""`swarm inspect`: what is inside one checkpoint, once its digest and its roots have been recomputed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from contracts.errors import NotFound, NotVerified
from runtime.cli import wording
from runtime.cli.call import Call, command
from runtime.cli.child import ask
from runtime.cli.reach import chosen
from runtime.cli.terminal import style
from runtime.model import INSPECT
from runtime.views.sentences import size


@command("inspect")
@click.argument("checkpoint", metavar="CHECKPOINT")
def inspect(call: Call, *, checkpoint: str) -> None:
    """Show the tensors of CHECKPOINT (S:STEP, S:best, a blob's digest, or a file) and verify its roots.

    Exit code 3 when its bytes are not what they should be.
    """
    wanted = _found(call, checkpoint)
    args = {"path": wanted["path"], "state_root": wanted.get("state_root")}
    with tempfile.TemporaryDirectory(prefix="swarm-inspect-") as folder:
        seen = call.wait(ask(INSPECT, args, purpose="probe", log=Path(folder) / "log"))
    for name in ("blob", "step", "weights_digest"):
        if name in wanted and wanted[name] != seen[name]:
            message = f"the checkpoint has the {name} {seen[name]!r}, not {wanted[name]!r}."
            raise NotVerified(
                message, cure=f"Use another: swarm checkpoints {wanted.get('session', 'S')}", path=wanted["path"]
            )
    seen |= {"verified": ["blob", "state_root", "weights_digest"] if "step" in wanted else sorted({*wanted} & {"blob"})}
    seen["session"] = wanted.get("session")
    call.result(seen, lambda: _page(seen))


def _found(call: Call, name: str) -> dict[str, Any]:
    """The file, and all that the log or the name itself says about it."""
    from runtime.model import checkpoints as known

    if Path(name).is_file():
        return {"path": str(Path(name).absolute())}
    session, colon, which = name.rpartition(":")
    if colon:
        return _of_session(call, session, which)
    path = known.blob_of(name, call.home)
    if path is None:
        cure = "Name it S:STEP, S:best, by its digest, or by a path."
        raise NotFound(f"there is no checkpoint {name!r}.", cure=cure, path=name)
    return {"path": str(path), "blob": path.name}


def _of_session(call: Call, session: str, which: str) -> dict[str, Any]:
    from bus.blobs import DirectoryBlobs
    from runtime.log.archive import Archive
    from runtime.model import checkpoints as known

    archive = Archive(call.home)
    state = archive.read(chosen(call, session, archive)).history.state
    written = known.named(state, which).written
    about = {name: getattr(written, name) for name in ("blob", "step", "state_root", "weights_digest")}
    return about | {"session": state.id, "path": str(DirectoryBlobs(call.home.blobs).path(written.blob))}


def _page(seen: Mapping[str, Any]) -> str:
    by_log = "as the log has them" if seen["session"] else "as the file has them"
    rows = [
        ("file", seen["path"]),
        ("blob", seen["blob"]),
        ("session", seen["session"] or ""),
        ("step", str(seen["step"])),
        ("size", f"{size(seen['bytes'])}, {seen['parameters']} numbers in the model's tensors"),
        ("state root", f"{seen['state_root']} (recomputed, {by_log})"),
        ("weights", f"{seen['weights_digest']} (recomputed, {by_log})"),
        ("tied", ", ".join(f"{name} = {of}" for name, of in seen["aliases"].items())),
        ("", "" if seen["finite"] else style("some values are not finite", fg="red")),
    ]
    table = wording.table(("tensor", "shape", "dtype", "norm"), [_row(one) for one in seen["tensors"]])
    return f"{wording.pairs(rows)}\n\n{table}"


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    shape = "x".join(map(str, one["shape"])) or "scalar"
    return one["name"], shape, one["dtype"], "not finite" if one["norm"] is None else f"{one['norm']:.6g}"
