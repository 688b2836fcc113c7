"""`swarm dlq`: what handlers could not do, what was not admitted, and trying again."""

from __future__ import annotations

from typing import Any

import click

from contracts.errors import SwarmError
from runtime.cli.call import Call, calling, command, shared
from runtime.cli.wording import table


@click.group("dlq", invoke_without_command=True)
@shared
@click.pass_context
def dlq(context: click.Context, /, **options: Any) -> None:
    """Show recorded handler failures and messages that are no facts (with no swarm up, those in the files)."""
    if context.invoked_subcommand is None:
        calling(_list)(**options)
    else:
        from runtime.cli.call import remember

        remember(options)


def _list(call: Call) -> None:
    found = call.wait(_from_swarm(call)) if call.up else _from_files(call)
    call.result(found, lambda: _page(found))


async def _from_swarm(call: Call) -> dict[str, Any]:
    async with call.swarm() as found:
        return await found.command("dlq")


def _from_files(call: Call) -> dict[str, Any]:
    from runtime.log.archive import Archive

    archive = Archive(call.home)
    letters: list[dict[str, Any]] = []
    voids: list[dict[str, Any]] = []
    for session in archive.ids():
        try:
            kept = archive.read(session)
        except SwarmError as error:
            call.note(f"{session} is left out: {error.message}")
            continue
        for id_, seen in kept.history.state.failures.items():
            said = {"role": seen.role, "handler": seen.handler, "error": seen.error}
            letters.append({"session": session, "failure": id_} | said)
        voids += [
            {"seq": void.seq, "subject": void.subject, "reason": str(void.reason), "detail": void.detail}
            for void in kept.voids
        ]
    return {"letters": letters, "voids": voids}


def _page(found: dict[str, Any]) -> str:
    letters = [
        [one["failure"], one["session"], f"{one['role']}.{one['handler']}", one["error"]] for one in found["letters"]
    ]
    voids = [[str(one["seq"]), one["reason"], one["subject"], one["detail"]] for one in found["voids"]]
    blocks = [table(("failure", "session", "handler", "error"), letters) if letters else "No handler has given up."]
    blocks += [table(("seq", "void because", "subject", "detail"), voids) if voids else "Every message was admitted."]
    return "\n\n".join(blocks)


@command("redrive", short_help="Have a handler that failed try once more.")
@click.argument("failure", metavar="FAILURE")
def redrive(call: Call, *, failure: str) -> None:
    """Have the handler whose failure this is (an id that `swarm dlq` shows) try once more."""
    answer = call.wait(_redrive(call, failure))
    call.result(answer, f"{failure} is tried again in session {answer['session']}.")


async def _redrive(call: Call, failure: str) -> dict[str, Any]:
    async with call.swarm() as found:
        return await found.command("redrive", failure=failure)


dlq.add_command(redrive)
dlq.add_command(command("list", help="Show failures and voids.")(_list))
