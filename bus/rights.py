"""Who may publish and hear what on the server: the rights of every identity, deny by default; no configuration text.

Two accounts. LOG holds the streams and the built-in roles. EDGE holds the owner, clients, people and guests: it owns
nothing, creates no consumers, and reaches LOG only through the imports listed here. Nobody has `allow_responses`: who
answers requests may publish to inboxes and to the server's own reply subjects, never to a subject that the asker made
up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from bus import nkeys, subjects
from contracts import roles
from contracts.errors import InvalidInput
from contracts.roles import Right
from contracts.signed_command import CLIENT, OWNER, PERSON, RIGHTS, UNSIGNED

ROLES = tuple(role.name for role in roles.ROLES)
"""The built-in identities of the account LOG."""

_BY_NAME: Mapping[str, roles.Role] = {role.name: role for role in roles.ROLES}
_READS = ("DIRECT.GET.*", "DIRECT.GET.*.>", "STREAM.MSG.GET.*", "STREAM.INFO.*")
_API = "$JS.API"
_FACTS = subjects.stream(subjects.EVERYTHING)
"""The one stream that has durables."""
_DELIVERY = ".*" * 5
"""What the subject of an acknowledgement says about a delivery: five tokens, no more and no fewer."""


@dataclass(frozen=True, slots=True)
class Rights:
    """The subjects an identity may publish to and subscribe to; nothing else."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    never: tuple[str, ...] = ()
    """Of what `publish` covers, what may not be published all the same."""


@dataclass(frozen=True, slots=True)
class PersonUser:
    """A person's public key at the server, and what the keyring says that this person may do."""

    public: str
    rights: tuple[Right, ...]


@dataclass(frozen=True, slots=True)
class Users:
    """Public keys by identity: all that a server's configuration needs to know."""

    roles: Mapping[str, str]
    client: str
    owner: str
    guests: Mapping[str, str] = field(default_factory=dict)
    people: Mapping[str, PersonUser] = field(default_factory=dict)

    def with_guest(self, agent: str, public: str) -> Users:
        """These users and one guest more (or with a new key)."""
        subjects.lane_everywhere(subjects.GUEST + agent)
        return replace(self, guests={**self.guests, agent: nkeys.check_public(public)})

    def without_guest(self, agent: str) -> Users:
        """These users without that guest."""
        return replace(self, guests={name: key for name, key in self.guests.items() if name != agent})

    def with_person(self, name: str, user: PersonUser) -> Users:
        """These users and one person more, or with a new key or other rights."""
        subjects.signed_command(PERSON + name, "ask", "*")
        nkeys.check_public(user.public)
        return replace(self, people={**self.people, name: user})

    def without_person(self, name: str) -> Users:
        """These users without that person."""
        return replace(self, people={one: user for one, user in self.people.items() if one != name})

    @classmethod
    def of(cls, keys: Path, guests: Mapping[str, str] | None = None) -> Users:
        """The users by name, from the files NAME.seed in a folder; missing files are made."""
        made = {name: nkeys.keep(seed_file(keys, name)).public for name in (*ROLES, CLIENT, OWNER)}
        client, owner = made.pop(CLIENT), made.pop(OWNER)
        stored = {path.stem.removeprefix("guest_"): nkeys.read(path).public for path in keys.glob("guest_*.seed")}
        return cls(made, client, owner, {**stored, **(guests or {})}, people_of(keys))


PEOPLE = "people.json"
"""Beside the seeds: the public keys and rights of people, who keep their seeds themselves."""


def people_of(keys: Path) -> dict[str, PersonUser]:
    """By name, what the server has to know of people; nobody where nothing is written down."""
    try:
        found = orjson.loads((keys / PEOPLE).read_bytes())
        return {
            str(name): PersonUser(
                nkeys.check_public(user["public"]), tuple(one for one in RIGHTS if one in user["rights"])
            )
            for name, user in found.items()
        }
    except FileNotFoundError:
        return {}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        cure = "Remove it, and give each person new credentials: swarm keys rotate NAME"
        raise InvalidInput(f"{str(keys / PEOPLE)!r} does not say who the server knows.", cure=cure) from None


def seed_file(keys: Path, identity: str) -> Path:
    """The file with the seed of an identity: a role, "client", "owner", or "guest_NAME"; people keep theirs."""
    return keys / f"{identity}.seed"


def inbox(identity: str) -> str:
    """The prefix of the only inboxes that an identity may hear."""
    if identity == CLIENT:
        return "_INBOX"
    if identity == OWNER:
        return "_OWNER"
    if identity.startswith(subjects.GUEST):
        return f"_GUEST.{identity[len(subjects.GUEST) :]}"
    if identity.startswith(PERSON):
        return f"_PERSON.{identity[len(PERSON) :]}"
    return f"_INBOX.{identity}"


def api(identity: str) -> str:
    """The prefix of the JetStream API: the account EDGE reaches LOG's under a name of its own, because the server
    answers the usual one itself, with "not enabled", in an account that holds no streams."""
    return "LOG.API" if at_edge(identity) else _API


def rights(identity: str, may: Sequence[Right] = ()) -> Rights:
    """The subjects that an identity may publish and subscribe to; everything else is denied.

    `may` is what a person may do.
    """
    if identity == roles.ADMIN:
        return Rights((">",), (">",))
    if identity == CLIENT:
        # The models of commands take long to import, and only who writes a server's configuration needs them.
        from contracts.commands import BODIES

        never = tuple(subjects.command(one.verb) for one in BODIES.values() if one.right not in UNSIGNED[CLIENT])
        return Rights((subjects.COMMANDS, *_reads(CLIENT)), (f"{inbox(CLIENT)}.>", *_LIVE_HERE), never)
    if identity == OWNER:
        asks = (subjects.OWNER_COMMANDS, subjects.COMMANDS, *_reads(OWNER))
        return Rights(asks, (f"{inbox(OWNER)}.>", *_LIVE_HERE))
    if identity.startswith(PERSON):
        reads, hears = (_reads(identity), _LIVE_HERE) if "ask" in may else ((), ())
        return Rights((*_signed(identity, may), *reads), (f"{inbox(identity)}.>", *hears))
    if identity.startswith(subjects.GUEST):
        publish = (subjects.lane_everywhere(identity), *_own(identity), *_reads(identity))
        return Rights(publish, (f"{inbox(identity)}.>", *_LIVE_HERE))
    if identity in ROLES:
        return _role(identity)
    raise InvalidInput(
        f"{identity!r} is no identity of the bus.", cure=f"Known: {', '.join(ROLES)}, client, owner, person_*, guest_*."
    )


def _own(role: str) -> tuple[str, ...]:
    """What every speaker may publish: its presence, its dead letters, and its own durable's requests and acks."""
    requests = f"{api(role)}.CONSUMER.MSG.NEXT.{_FACTS}.{role}"
    # Servers give the subjects of acknowledgements in three forms. Each has its exact number of tokens here: with an
    # open end, what stands in one form where the durable does could stand in another behind somebody else's durable,
    # and an acknowledgement there may ask for that one's messages.
    short, long = f"$JS.ACK.{_FACTS}.{role}{_DELIVERY}", f"$JS.ACK.*.*.{_FACTS}.{role}{_DELIVERY}"
    return f"swarm.sys.{role}.*.hb", subjects.dead_letter(role), requests, short, long, f"{long}.*"


def _signed(identity: str, may: Sequence[Right]) -> tuple[str, ...]:
    return tuple(subjects.signed_command(identity, right, "*") for right in RIGHTS if right in may)


def _reads(identity: str) -> tuple[str, ...]:
    return tuple(f"{api(identity)}.{verb}" for verb in _READS)


def at_edge(identity: str) -> bool:
    """Whether an identity belongs to the account EDGE: clients, people and guests do, built-in roles do not."""
    return identity in (CLIENT, OWNER) or identity.startswith((PERSON, subjects.GUEST))


def _role(role: str) -> Rights:
    # An embedded host holds every key of its home, so it may also say what each of its roles may say.
    played = [name for name in ROLES if name != roles.ADMIN] if role == roles.HOST else [role]
    lanes = [subjects.lane_everywhere(lane) for name in played for lane in _BY_NAME[name].lanes]
    publish = [*lanes, *(right for name in played for right in _own(name)), subjects.TELEMETRY, *_reads(role)]
    publish += [f"{READER}.*", "$JS.FC.>", f"{inbox(roles.DESK)}.>"]
    hear = [f"{inbox(role)}.>", subjects.redrive(role), subjects.TELEMETRY, subjects.heartbeats()]
    publish += [subject for name in played for subject in _signed(name, _BY_NAME[name].asks)]
    if roles.DESK in played:
        publish += [subjects.COMMANDS, "swarm.redrive.*", "_INBOX.>", "_R_.>"]
        hear += [subjects.COMMANDS, subjects.OWNER_COMMANDS, subjects.SIGNED_COMMANDS, subjects.DEAD_LETTERS]
    return Rights(tuple(publish), tuple(hear))


READER = f"{_API}.READER"
"""Where a role asks for an ephemeral consumer, followed by the stream."""

MAPPINGS = ((f"{READER}.*", f"{_API}.CONSUMER.CREATE.{{{{wildcard(1)}}}}.{{{{random(2000000000)}}}}"),)
"""The server names the readers, by a mapping of its system account, which answers the API. Who may name a consumer
may name another role's durable, and so redirect it."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """One subject that EDGE reaches in LOG: as a service (asked, `many` replies or one) or as a stream (heard);
    `as_` is its name in EDGE where that differs."""

    subject: str
    service: bool = True
    many: bool = False
    as_: str = ""


LIVE = "live"
"""What EDGE hears of LOG as it happens comes under this prefix; it is a hint to read, not the log."""

_NEXT = "CONSUMER.MSG.NEXT.*.*"

CROSSINGS = (
    Crossing(subjects.COMMANDS),
    Crossing(subjects.OWNER_COMMANDS),
    Crossing(subjects.SIGNED_COMMANDS),
    Crossing("swarm.ev.*.*.guest.>"),
    Crossing("swarm.sys.*.*.hb"),
    Crossing("swarm.dlq.*"),
    *(Crossing(f"{_API}.{verb}", many=verb.startswith("DIRECT"), as_=f"{api(CLIENT)}.{verb}") for verb in _READS),
    Crossing(f"{_API}.{_NEXT}", many=True, as_=f"{api(CLIENT)}.{_NEXT}"),
    Crossing("$JS.ACK.>"),
    Crossing(subjects.EVERYTHING, service=False),
    Crossing(subjects.TELEMETRY, service=False),
)
"""All imports of EDGE, there from the start: users can be added while a server runs, imports cannot."""

_LIVE_HERE = tuple(f"{LIVE}.{crossing.subject}" for crossing in CROSSINGS if not crossing.service)
