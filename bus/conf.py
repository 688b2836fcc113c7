"""The server's configuration as text, made from `Users` and `bus.rights`; it starts nothing and writes no file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bus.frames import MAX_PAYLOAD
from bus.rights import CROSSINGS, LIVE, MAPPINGS, ROLES, Crossing, Users, rights
from bus.subjects import GUEST
from contracts.roles import Right
from contracts.signed_command import CLIENT, OWNER, PERSON

MAX_STORE = 10 * 2**30
"""Bytes of the JetStream store, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where an embedded server listens and keeps its files."""

    folder: Path
    port: int
    max_store: int = MAX_STORE


def embedded(users: Users, place: ServerPlace) -> str:
    """The whole configuration of the server of a home: loopback only, keys only, every write synced."""
    return f"""\
server_name: swarm
host: 127.0.0.1
port: {place.port}
max_payload: {MAX_PAYLOAD}
ping_interval: "10s"
write_deadline: "10s"
pid_file: {_quote(place.folder / "pid")}
log_file: {_quote(place.folder / "log")}
logfile_size_limit: 16777216
logfile_max_num: 2

jetstream {{
  store_dir: {_quote(place.folder / "store")}
  max_file_store: {place.max_store}
  max_memory_store: 67108864
  sync_interval: always
}}

{accounts(users)}"""


def accounts(users: Users) -> str:
    """The two accounts with their users, exports and imports; keys may be `$VARIABLES`. $SYS has no user."""
    log = _users((role, users.roles[role], ()) for role in ROLES)
    edge = _users(
        [
            (CLIENT, users.client, ()),
            (OWNER, users.owner, ()),
            *((GUEST + name, key, ()) for name, key in sorted(users.guests.items())),
            *((PERSON + name, user.public, user.rights) for name, user in sorted(users.people.items())),
        ]
    )
    return f"""\
system_account: SYS
accounts {{
  SYS {{
    mappings: {{
{_lines(f"{_quote(source)}: {_quote(target)}" for source, target in MAPPINGS)}
    }}
  }}
  LOG {{
    jetstream: enabled
    users: [
{log}
    ]
    exports: [
{_lines(map(_export, CROSSINGS))}
    ]
  }}
  EDGE {{
    users: [
{edge}
    ]
    imports: [
{_lines(map(_import, CROSSINGS))}
    ]
  }}
}}
"""


def variables() -> Users:
    """Users whose keys are variables of the server's environment, as in the files under deploy/."""
    return Users({role: f"$NKEY_{role.upper()}" for role in ROLES}, "$NKEY_CLIENT", "$NKEY_OWNER")


def environment(users: Users) -> Mapping[str, str]:
    """The values of `variables()`."""
    return {
        f"NKEY_{name.upper()}": key for name, key in {**users.roles, CLIENT: users.client, OWNER: users.owner}.items()
    }


def _users(keys: Iterable[tuple[str, str, Sequence[Right]]]) -> str:
    users = []
    for identity, key, may in keys:
        allowed = rights(identity, may)
        never = f", deny: {_list(allowed.never)}" if allowed.never else ""
        users.append(f"""\
      {{ # {identity}
        nkey: {key}
        permissions: {{
          publish: {{ allow: {_list(allowed.publish)}{never} }}
          subscribe: {{ allow: {_list(allowed.subscribe)} }}
        }}
      }}""")
    return "\n".join(users)


def _export(crossing: Crossing) -> str:
    if not crossing.service:
        return f"{{ stream: {_quote(crossing.subject)}, accounts: [EDGE] }}"
    response = ", response_type: stream" if crossing.many else ""
    return f"{{ service: {_quote(crossing.subject)}, accounts: [EDGE]{response} }}"


def _import(crossing: Crossing) -> str:
    source = f"{{ account: LOG, subject: {_quote(crossing.subject)} }}"
    if not crossing.service:
        return f"{{ stream: {source}, prefix: {LIVE} }}"
    return f"{{ service: {source}, to: {_quote(crossing.as_)} }}" if crossing.as_ else f"{{ service: {source} }}"


def _lines(entries: Iterable[str]) -> str:
    return "\n".join(f"      {entry}" for entry in entries)


def _list(entries: Iterable[str]) -> str:
    return f"[{', '.join(map(_quote, entries))}]"


def _quote(value: str | Path) -> str:
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
