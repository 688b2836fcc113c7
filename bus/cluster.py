"""The jobs around a cluster of servers: mint its users, write its accounts, make its streams. It starts no server.

python -m bus.cluster keys --keys DIR --env FILE --node nats-1:6222 ...   before the first start of the servers
python -m bus.cluster provision --keys DIR --url URL,URL --replicas 3     once they run; again is harmless
python -m bus.cluster accounts [--guest NAME=UKEY ...] [--person NAME=UKEY=ask,decide ...]   deploy/accounts.conf
"""

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bus import nkeys
from bus.conf import accounts, environment, variables
from bus.disk import make_directory, write_file
from bus.durables import Layout
from bus.jetstream import connect_admin
from bus.rights import PersonUser, Users, seed_file
from contracts.errors import InvalidInput, SwarmError, Unreachable
from contracts.signed_command import RIGHTS

_FORMING = 60.0
"""Seconds within which a new cluster should be able to answer."""

HEADER = "# Made by `python -m bus.cluster accounts`: the rights are written once, in bus/rights.py.\n\n"


def server_environment(users: Users, nodes: Sequence[str], password: str) -> Mapping[str, str]:
    """What the files under deploy/ expect in a server's environment, besides its own name, addresses and store."""
    routes = {f"SWARM_ROUTE_{n}": f'"nats://swarm:{password}@{node}"' for n, node in enumerate(nodes, 1)}
    return {**environment(users), "SWARM_ROUTE_PASSWORD": f'"{password}"', **routes}


def keys(folder: Path, env: Path, nodes: Sequence[str]) -> None:
    """Mint what is missing and write the environment of the servers, for `sh` to read; both are secret."""
    if env.exists():
        # The running servers know this route password; a new one would keep a restarted server out.
        Users.of(folder)
        return
    lines = server_environment(Users.of(folder), nodes, secrets.token_hex(16))
    make_directory(env.parent)
    write_file(env, "".join(f"{name}='{value}'\n" for name, value in lines.items()).encode())


async def provision(folder: Path, url: str, layout: Layout) -> None:
    """Create or confirm the streams, as soon as the servers have found a leader."""
    deadline = time.monotonic() + _FORMING
    async with connect_admin(url, nkeys.read(seed_file(folder, "admin")), layout=layout, patience=_FORMING) as admin:
        while True:
            try:
                return await admin.provision()
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)


def accounts_file(guests: Mapping[str, str], people: Mapping[str, PersonUser]) -> str:
    """The accounts with keys as variables; guests and people with the keys given."""
    users = variables()
    for name, person in people.items():
        users = users.with_person(name, person)
    for name, key in guests.items():
        users = users.with_guest(name, key)
    return HEADER + accounts(users)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job; the exit code."""
    given = _parser().parse_args(arguments)
    try:
        match given.job:
            case "keys":
                keys(given.keys, given.env, given.node)
            case "provision":
                asyncio.run(provision(given.keys, given.url, Layout(replicas=given.replicas, facts_bytes=given.bytes)))
            case "accounts":
                sys.stdout.write(accounts_file(dict(map(_pair, given.guest)), dict(map(_person, given.person))))
    except SwarmError as refused:
        sys.stderr.write(f"{refused}\n")
        return refused.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bus.cluster", description="Jobs around a cluster of servers.")
    jobs = parser.add_subparsers(dest="job", required=True)
    minting = jobs.add_parser("keys", help="mint the users and write the servers' environment")
    minting.add_argument("--keys", type=Path, required=True, help="folder of the seeds")
    minting.add_argument("--env", type=Path, required=True, help="file that the servers source")
    minting.add_argument("--node", action="append", required=True, help="HOST:PORT of a server's cluster port")
    making = jobs.add_parser("provision", help="create or confirm the streams")
    making.add_argument("--keys", type=Path, required=True, help="folder of the seeds")
    making.add_argument("--url", required=True, help="the servers, separated by commas")
    making.add_argument("--replicas", type=int, default=3)
    making.add_argument("--bytes", type=int, default=Layout().facts_bytes, help="room for facts, per server")
    writing = jobs.add_parser("accounts", help="print the accounts file")
    writing.add_argument("--guest", action="append", default=[], help="NAME=PUBLIC-KEY of a guest agent")
    writing.add_argument("--person", action="append", default=[], help="NAME=PUBLIC-KEY=RIGHTS of a person")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, key = text.partition("=")
    if not equals:
        raise InvalidInput(f"{text!r} names no key.", cure="Write --guest NAME=UKEY.")
    return name, key


def _person(text: str) -> tuple[str, PersonUser]:
    name, rest = _pair(text)
    key, _, named = rest.partition("=")
    rights = tuple(right for right in RIGHTS if right in named.split(","))
    if ",".join(rights) != named or not rights:
        raise InvalidInput(f"{named!r} names no rights.", cure=f"Write --person NAME=UKEY={','.join(RIGHTS)}")
    return name, PersonUser(key, rights)


if __name__ == "__main__":
    sys.exit(main())
