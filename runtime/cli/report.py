"""`swarm report`: a session's report, made from its log now. It needs no swarm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import chosen
from runtime.cli.terminal import style


@command("report")
@session_argument
def report(call: Call, *, session: str) -> None:
    """Write request.yaml, metrics.json, report.md and plots of session S into its folder, and show the report."""
    from runtime.log.archive import Archive

    archive = Archive(call.home)
    wanted = chosen(call, session, archive)
    made = call.wait(_made(call, wanted, archive.root))
    folder = Path(made["path"]).parent
    found = {
        "session": wanted,
        "path": made["path"],
        "metrics": str(folder / "metrics.json"),
        "request": str(folder / "request.yaml"),
        "plots": [str(folder / "plots" / f"{name}.png") for name in made["plots"]],
    }
    if made["problem"]:
        call.note(f"Some plots could not be drawn: {made['problem']}")
    call.result(found, lambda: Path(made["path"]).read_text() + "\n" + style(made["path"], dim=True))


async def _made(call: Call, session: str, root: str) -> dict[str, Any]:
    from runtime.host.reporter import write
    from runtime.jobs.children import Children

    children = Children()
    try:
        return dict(await write(session, call.home, children, root=root))
    finally:
        await children.close()
