"""`swarm person`: people with rights, who sign what they ask."""

from __future__ import annotations

from typing import Any

import click

from runtime.cli.call import Call, command, remember, shared
from runtime.cli.output import table

RIGHTS = ("ask", "decide", "administer")


@click.group("person")
@shared
def person(**options: Any) -> None:
    """Admit people, list them, and turn them out."""
    remember(options)


@command("new", short_help="Admit a person, with rights.")
@click.argument("name", metavar="NAME")
@click.option("--rights", required=True, metavar="RIGHT,...", help=f"What the person may do: {', '.join(RIGHTS)}.")
def person_new(call: Call, *, name: str, rights: str) -> None:
    """Admit the person NAME: a key that signs commands, a user on the server, and a file with both.

    `ask` is to read and to have sessions made, `decide` to cancel, pause and resume them, `administer` to say who may
    take part. Hand the file over and remove it here: the swarm keeps no other copy of its secrets.
    """
    made = call.ask("person", name=name, rights=[right.strip() for right in rights.split(",")])
    use = f"swarm --as {name} cancel SESSION"
    text = f"{made['role']} may {' and '.join(made['rights'])}; credentials: {made['creds']}\nUse them: {use}"
    call.result(made, text)


@command("list", short_help="List the people who are admitted.")
def person_list(call: Call) -> None:
    """List the people who are admitted, with their rights and the key of each."""
    people = [
        {"name": key["role"].removeprefix("person_"), "rights": key["rights"], "key": key["key"]}
        for key in call.ask("keys")["keys"]
        if key["in_force"] and key["role"].startswith("person_")
    ]
    rows = [[one["name"], ", ".join(one["rights"]), one["key"]] for one in people]
    call.result({"people": people}, lambda: table(("name", "rights", "key"), rows) if rows else "Nobody is admitted.")


@command("revoke", short_help="Turn a person out.")
@click.argument("name", metavar="NAME")
@click.option("--reason", required=True, help="Why; it stands in the keyring.")
def person_revoke(call: Call, *, name: str, reason: str) -> None:
    """Take no command of the person NAME any more; what was signed before stays verifiable."""
    ended = call.ask("revoke", key=f"person_{name}", reason=reason)
    call.result(ended, f"{ended['role']} is turned out; key {ended['old']} signs nothing any more.")


for one in (person_new, person_list, person_revoke):
    person.add_command(one)
