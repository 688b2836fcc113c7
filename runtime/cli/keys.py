"""`swarm keys`, `person`: who may sign what, from when until when; new keys for roles, people with rights."""

from typing import Any

import click

from contracts.errors import NotFound
from contracts.ids import PARTITION
from runtime.cli.call import Call, Json, calling, command, remember, shared
from runtime.cli.output import table


@click.group("keys", invoke_without_command=True)
@shared
@click.pass_context
def keys(context: click.Context, /, **options: Any) -> None:
    """List every key that ever signed in this deployment, with the interval in which it counts.

    With no swarm up, those in the home's files. The last line is the root's fingerprint, as `audit --root` takes it.
    """
    if context.invoked_subcommand is None:
        calling(_list)(**options)
    else:
        remember(options)


def _list(call: Call) -> None:
    from bus.keys import KeyStore
    from runtime.views.view import key_lines

    answer: Json = call.ask("keys") if call.up else {"keys": key_lines(_ring(call).history.facts)}
    # In all its digits, as `--root` takes it; empty when this home pins none.
    answer["root"] = KeyStore(call.home.keys).pinned()
    call.result(answer, lambda: keys_page(answer["keys"], answer["root"]))


def _ring(call: Call) -> Any:
    from runtime.log.archive import Archive

    ring = Archive(call.home).ring(PARTITION)
    if ring is None:
        raise NotFound(f"there is no keyring in {str(call.home.root)!r}.", cure="`swarm up` opens it.")
    return ring


@command("rotate", short_help="Give a role or a guest a new key.")
@click.argument("role", metavar="ROLE")
def rotate(call: Call, *, role: str) -> None:
    """Give ROLE (or the guest of that name) a new key; what its old one signed stays valid.

    Whoever runs goes on with the new key. With no swarm up the key is made now and takes over at the next `swarm up`.
    """
    if call.up:
        made = call.ask("rotate", role=role)
        call.result(made, f"{made['role']} signs with key {made['key']} from here on; {made['old']} has ended.")
        return
    from bus.keys import KeyStore
    from runtime.commands.deployment_keys import in_force

    old = in_force(_ring(call).admission.keyring(PARTITION), role)
    made = {"role": old.role, "old": old.id, "key": KeyStore(call.home.keys).prepare(old.role).key_id}
    call.result(made, f"{made['role']} will sign with key {made['key']} from the next `swarm up` on.")


@command("revoke", short_help="End a key: what it signs from here on is void.")
@click.argument("key", metavar="KEY|GUEST")
@click.option("--reason", required=True, help="Why; it stands in the keyring.")
def revoke(call: Call, *, key: str, reason: str) -> None:
    """Let nothing count any more that KEY signs from here on; what it signed before stays valid.

    A guest is turned out; a built-in role goes on with a new key.
    """
    ended = call.ask("revoke", key=key, reason=reason)
    after = f"{ended['role']} goes on with key {ended['key']}" if ended["key"] else f"{ended['role']} is turned out"
    call.result(ended, f"Key {ended['old']} counts no more; {after}.")


def keys_page(keys: list[Json], root: str) -> str:
    """Keys and the fingerprint of the root as the text that `swarm keys` prints."""
    rows = []
    for key in keys:
        until = "" if key["in_force"] else f"{key['until']} ({_moment(key['until_time'])}), {key['ended']}"
        rows.append([key["role"], key["key"], f"{key['since']} ({_moment(key['since_time'])})", until])
    page = table(("role", "key", "counts from", "until"), rows)
    return f"{page}\nroot  {root}" if root else page


def _moment(time: str) -> str:
    return time[:19].replace("T", " ")


keys.add_command(rotate)
keys.add_command(revoke)
keys.add_command(command("list", help="List the keys.")(_list))


RIGHTS = ("ask", "decide", "administer")


@click.group("person")
@shared
def person(**options: Any) -> None:
    """Admit people, list them, and turn them out.

    Rights do not change under one key. For other rights turn the person out, and admit them again:
    `person revoke NAME --reason TEXT`, then `person new NAME --rights RIGHT,...`, which writes a new file.
    """
    remember(options)


@command("new", short_help="Admit a person, with rights.")
@click.argument("name", metavar="NAME")
@click.option("--rights", required=True, metavar="RIGHT,...", help=f"What the person may do: {', '.join(RIGHTS)}.")
def person_new(call: Call, *, name: str, rights: str) -> None:
    """Admit the person NAME: a key that signs commands, a user on the server, and a file with both.

    `ask` is to read and to have sessions made, `decide` to cancel, pause and resume them, `administer` to say who may
    take part. Hand the file over and remove it here: the swarm keeps no other copy of its secrets.

    Who is admitted with other rights is turned out first (`person revoke NAME`), because rights belong to a key.
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
