"""`swarm keys`: who may sign what, from when until when; new keys for roles, and the end of one."""

from __future__ import annotations

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
