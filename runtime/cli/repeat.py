"""The part of `swarm audit` that computes spans again: from a verdict on the log to one on what it says."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.cli.call import Call
from runtime.cli.output import place

if TYPE_CHECKING:
    from runtime.audit import Verdict
    from runtime.audit.repeated import Asked, Material, Repeated

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


def options(function: Any) -> Any:
    """The options of the modes that compute."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def repeated(call: Call, found: Verdict, root: str, mode: str, **given: Any) -> Repeated:
    """The verdict after spans were computed again."""
    from runtime.audit.repeated import Asked

    seed = given.pop("seed")
    workers = given.pop("workers") or 0
    asked = Asked(mode=mode, seed=secrets.randbits(32) if seed is None else seed, workers=workers, **given)  # type: ignore[arg-type]
    if mode == "spot":
        call.note(f"Spans are drawn by seed {asked.seed}.")
    if found.bundle:
        from tempfile import TemporaryDirectory

        from runtime.audit.unpacked import unpacked

        with TemporaryDirectory(prefix="swarm-audit-") as folder:
            opened = unpacked(Path(found.bundle), root, Path(folder))
            judged = call.wait(_repeated(call, found, opened, asked))
            with suppress(OSError):
                opened.work.rmdir()
            return judged
    return call.wait(_repeated(call, found, _of_home(call, found.session, root), asked))


def _of_home(call: Call, session: str, root: str) -> Material:
    from bus.blobs import DirectoryBlobs
    from runtime.archive import Archive
    from runtime.audit.repeated import Material

    home = call.home
    return Material(
        Archive(home, root).read(session), DirectoryBlobs(home.blobs), home.root / "work" / "audits", home.root
    )


async def _repeated(call: Call, found: Verdict, material: Material, asked: Asked) -> Repeated:
    from runtime.audit.repeated import repeat
    from runtime.children import Children

    children = Children()
    try:
        return await repeat(found, material, asked, children, call.note)
    finally:
        await children.close()


def rebuilt(call: Call, session: str, step: int, out: str, *, trust: bool) -> dict[str, Any]:
    """Write the weights at a step; what `swarm replay` says of them."""
    return call.wait(_rebuilt(_of_home(call, session, ""), step, place(out), trust=trust))


async def _rebuilt(material: Material, step: int, out: Path, *, trust: bool) -> dict[str, Any]:
    from runtime.audit.rebuilt import rebuilt as weights
    from runtime.children import Children

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
        chances = ", ".join(
            f"{float(rate):.0%} bad: {chance:.1%}" for rate, chance in found.detection.items() if rate != "one"
        )
        told += [("seed", str(found.seed)), ("finds", f"{chances}; a single bad span: {found.detection['one']:.1%}")]
    for one in (found.located or {}).get("sentences", ()):
        told.append(("located", one))
    return told
