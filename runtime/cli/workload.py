"""`swarm workload`: models and data of the user's own, pinned by their digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from runtime.cli.call import Call, command, remember, shared
from runtime.cli.wording import table

if TYPE_CHECKING:
    from runtime.home.workloads import WorkloadEntry


@click.group("workload")
@shared
def workload(**options: Any) -> None:
    """Register workloads, which requests then name; a request never carries code."""
    remember(options)


@command("add", short_help="Pin a file as it is now, under a name.")
@click.argument("file", metavar="FILE[:CLASS]")
@click.option("--name", default="", help="What requests call it (default: the file's name).")
def add(call: Call, *, file: str, name: str) -> None:
    """Pin FILE as it is now. A process of its own imports it once, to show what would go wrong later."""
    made = added(call, file, name)
    was = f" (was {made['was'][:16]})" if made["was"] not in (None, made["digest"]) else ""
    what = f"{made['class']} in {made['path']}, digest {made['digest'][:16]}{was}"
    use = f"Use it: model: {{architecture: workload, workload: {made['name']}}}"
    call.result(made, f"Workload {made['name']!r} is {what}.\n{use}")


def added(call: Call, file: str, name: str = "") -> dict[str, Any]:
    """Register a workload; what it is now, and under `was` the digest that its name had before."""
    from runtime.home.workloads import Workloads

    registry = Workloads(call.home.root)
    before = {one.name: one.digest for one in registry.list()}
    made = call.wait(_add(registry, file, name))
    return _described(made) | {"was": before.get(made.name)}


async def _add(registry: Any, file: str, name: str) -> WorkloadEntry:
    from runtime.jobs.children import Children

    children = Children()
    try:
        made: WorkloadEntry = await registry.add(file, children, name=name)
    finally:
        await children.close()
    return made


@command("list")
def list_(call: Call) -> None:
    """List the workloads of this home and of installed packages."""
    from runtime.home.workloads import Workloads

    found = Workloads(call.home.root).list()
    rows = [[one.name, one.class_name, one.digest[:16], one.module or one.path] for one in found]
    text = (
        table(("workload", "class", "digest", "from"), rows) if rows else "None yet. Add one: swarm workload add FILE"
    )
    call.result({"workloads": [_described(one) for one in found]}, text)


@command("remove")
@click.argument("name", metavar="NAME")
def remove(call: Call, *, name: str) -> None:
    """Forget a workload that was added; its file stays."""
    from runtime.home.workloads import Workloads

    Workloads(call.home.root).remove(name)
    call.result({"removed": name}, f"Workload {name!r} is forgotten.")


def _described(one: WorkloadEntry) -> dict[str, Any]:
    return {"name": one.name, "class": one.class_name, "path": one.path, "digest": one.digest}


for _command in (add, list_, remove):
    workload.add_command(_command)
