"""The swarm as an AsyncAPI 3 document, for programs in any language: every channel, message, schema and who uses them.

It is made from what the code runs on (subjects, event classes, the signatures of agents), so that it cannot differ.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from bus import keys, rights, subjects
from contracts.commands import BODIES, Command, SubmitCommand
from contracts.envelope import PREFIX, EnvelopeSchema
from contracts.event import Event, events
from contracts.keyring import KeyAdmitted
from contracts.roles import ANYBODY, DESK, ROOT
from contracts.signed_command import CLIENT
from runtime.node import roster as agents
from runtime.node.agent import Agent
from runtime.version import VERSION

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}


def _object(required: Json, optional: Json | None = None) -> Json:
    """The schema of an object with these members; others are allowed."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}


ERROR = _object(
    {
        "error": _object(
            {"code": _TEXT, "message": _TEXT, "path": _TEXT, "cure": _TEXT},
            {"problems": {"type": "array", "items": _object({"path": _TEXT, "message": _TEXT, "cure": _TEXT})}},
        )
    }
) | {"additionalProperties": False}
"""The answer when the answer is no; a refused request lists all its problems."""


class Schemas:
    """Definitions by name; a definition that several messages share is there once."""

    def __init__(self, events: Iterable[type[Event]]) -> None:
        kept = tuple(events)
        models: list[type[BaseModel]] = [*kept, EnvelopeSchema, *BODIES.values()]
        replies: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
            (kind.verb, "serialization", TypeAdapter(kind.reply)) for kind in BODIES.values()
        ]
        bodies: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
            (model.__qualname__, "validation", TypeAdapter(model)) for model in models
        ]
        found, defined = TypeAdapter.json_schemas([*bodies, *replies], ref_template="#/components/schemas/{model}")
        names = {name: one["$ref"].rpartition("/")[2] for (name, _), one in found.items() if "$ref" in one}
        renamed = {names[event.__qualname__]: data_of(event) for event in kept}
        renamed |= {names[EnvelopeSchema.__qualname__]: "Envelope"}
        self.definitions: Json = {
            renamed.get(name, name): _plain(one, renamed) for name, one in defined["$defs"].items()
        }
        self.replies: Json = {kind.verb: _plain(found[kind.verb, "serialization"], renamed) for kind in BODIES.values()}
        self.bodies: Json = {kind.verb: self._body(kind, names) for kind in BODIES.values()}

    def _body(self, kind: type[Command], names: Mapping[str, str]) -> Json:
        """The body of a command; of a request in full and with what belongs to the command, because it is closed."""
        definition: Json = self.definitions.pop(names[kind.__qualname__])
        if not issubclass(kind, SubmitCommand):
            return definition
        own = {name: one for name, one in definition["properties"].items() if name != "request"}
        asked = definition["properties"]["request"]
        requests = [self.definitions[one["$ref"].rpartition("/")[2]] for one in asked.get("anyOf", [asked])]
        forms = [request | {"properties": request["properties"] | own} for request in requests]
        return forms[0] if len(forms) == 1 else {"oneOf": forms}


def data_of(event: type[Event]) -> str:
    """The name of the schema of an event's data among the components."""
    return f"{event.wire}.v{event.version()}"


def _plain(node: Any, renamed: Mapping[str, str]) -> Any:
    """A schema with our events' names and without the `discriminator` of pydantic, which means another thing here."""
    if isinstance(node, list):
        return [_plain(one, renamed) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: one for key, one in node.items() if not (key == "discriminator" and isinstance(one, dict))}
    made = {key: _plain(one, renamed) for key, one in kept.items()}
    reference = made.get("$ref")
    if isinstance(reference, str):
        place, _, name = reference.rpartition("/")
        made["$ref"] = f"{place}/{renamed.get(name, name)}"
    return made


Roster = Mapping[str, type[Agent]]

_SESSION = "00-session"
_BINDING = "0.1.0"

PARAMETERS: Mapping[str, str] = {
    "pp": "Partition and generation: the session's id before its hyphen.",
    "session": "The id of the session.",
    "lane": "Who speaks: a role.",
    "role": "A role, or `guest_` and the name of a guest agent.",
    "agent": "The name of a guest agent.",
    "name": "The event's wire name, with `_` for `.`.",
    "kind": "What is measured.",
    "instance": "One running instance of a role.",
    "inbox": "The rest of the reply subject, as the client's library makes it.",
    "signer": "Who signed: `person_` and the name of a person, or a built-in role that asks.",
    "right": "The right that the command needs.",
    "verb": "The name of the command.",
}

REPLIES = f"{rights.inbox(CLIENT)}.{{inbox}}"
"""Where answers go: a client may listen to reply subjects of this form alone."""


def document(roster: Roster | None = None, *, host: str = "127.0.0.1:4222") -> Json:
    """The document for these agents (all built-in ones by default) and a server at `host`."""
    roster = agents.load_all() if roster is None else roster
    spoken = speakers(roster)
    schemas = Schemas(event for event, _ in spoken)
    channels, messages, operations = _facts(spoken, roster)
    for part in (_guests(), _live(), _commands(schemas)):
        channels |= part[0]
        messages |= part[1]
        operations |= part[2]
    security = [_ref("securitySchemes", "nkey")]
    return {
        "asyncapi": "3.0.0",
        "id": "urn:stigmergy:swarm",
        "info": {"title": "Stigmergy", "version": VERSION, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "servers": {"swarm": {"host": host, "protocol": "nats", "description": _SERVER, "security": security}},
        "channels": {name: channel | {"servers": [{"$ref": "#/servers/swarm"}]} for name, channel in channels.items()},
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas.definitions | {"error": ERROR},
            "securitySchemes": {"nkey": {"type": "asymmetricEncryption", "description": _NKEY}},
        },
    }


_ABOUT = (
    "Independent agents append typed facts to one log; each reacts to what the log says. Facts are CloudEvents 1.0 "
    "in structured JSON, chained per lane and signed. Commands are requests: they may be refused, and only what "
    "follows from them is a fact."
)
_SERVER = "NATS with JetStream. `swarm status --json` names the address and the file with a client's seed."
_NKEY = "An nkey of NATS: the client signs the server's nonce with the Ed25519 seed in its file."


def speakers(roster: Roster) -> list[tuple[type[Event], tuple[str, ...]]]:
    """Every event with the lanes in which it means what it says; none where that is any lane."""
    found = {event: tuple(lane for lane in event.said_in if lane != ANYBODY) for event in events().values()}
    # The root's events are never the desk's, but that the desk admits guests.
    found |= {event: (ROOT, DESK) if event is KeyAdmitted else (ROOT,) for event in found if ROOT in event.said_in}
    for role, agent in roster.items():
        strange = (event for event in agent.says() if not event.said_in)
        found |= {event: (*found.get(event, ()), role) for event in strange}
    return sorted(found.items(), key=lambda one: one[0].wire)


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _channel(address: str, summary: str, *messages: str) -> Json:
    carried = {name: _ref("messages", name) for name in messages}
    made: Json = {"address": address, "summary": summary, "messages": carried}
    found = {name: {"description": about} for name, about in PARAMETERS.items() if f"{{{name}}}" in address}
    return made | ({"parameters": found} if found else {})


def _operation(action: str, channel: str, summary: str, *messages: str, role: str = "", **more: Any) -> Json:
    here = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]
    made: Json = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary, "messages": here}
    return made | more | ({"x-stigmergy": {"role": role}} if role else {})


def _address(lane: str, wire: str) -> str:
    subject = subjects.fact(_SESSION, lane, wire)
    return subject.replace(f".{subjects.partition(_SESSION)}.{_SESSION}.", ".{pp}.{session}.")


def _facts(spoken: list[tuple[type[Event], tuple[str, ...]]], roster: Roster) -> tuple[Json, Json, Json]:
    """The channels of all facts, and which role says and hears each."""
    channels, messages, operations = {}, {}, {}
    for event, lanes in spoken:
        messages[event.wire] = _fact_message(event, lanes)
        summary = _first_sentence(event)
        for lane in lanes or ("{lane}",):
            address = _address(lane if lanes else "lane", event.wire)
            address = address if lanes else address.replace(".lane.", ".{lane}.")
            role = lane if lanes else "any"
            name = f"{role}.{event.wire}"
            channels[name] = _channel(address, summary, event.wire)
            operations[f"{role}.says.{event.wire}"] = _operation("send", name, summary, event.wire, role=role)
            for hearer, agent in roster.items():
                if event in agent.hears() or Event in agent.hears():
                    operations[f"{hearer}.hears.{name}"] = _operation("receive", name, summary, event.wire, role=hearer)
    return channels, messages, operations


def _fact_message(event: type[Event], lanes: tuple[str, ...]) -> Json:
    types = [f"{PREFIX}.{lane}.{event.wire}" for lane in lanes]
    said: Json = {
        "type": {"enum": types}
        if types
        else {"pattern": f"^{PREFIX}\\.[a-z0-9_-]+\\.{event.wire.replace('.', '[.]')}$"},
        "dataschema": {"const": event.schema_id},
        "data": _ref("schemas", data_of(event)),
    }
    if lanes:
        said["lane"] = {"enum": list(lanes)}
    return {
        "name": event.wire,
        "title": event.__name__,
        "summary": _first_sentence(event),
        "contentType": "application/cloudevents+json",
        "headers": _HEADERS,
        "correlationId": {"location": "$message.payload#/correlationid"},
        "payload": {"allOf": [_ref("schemas", "Envelope"), {"type": "object", "properties": said}]},
        "x-stigmergy": {
            "version": event.version(),
            "reads": [f"{event.wire}/{number}" for number in range(1, event.version() + 1)],
            "goldens": f"tests/contracts/goldens/{event.wire}.jsonl",
        },
    }


_HEADERS: Json = {
    "type": "object",
    "properties": {
        keys.HEADER: {
            "type": "string",
            "description": "Key and Ed25519 signature over the stored body; on the last event of each append.",
        },
        "traceparent": {"type": "string", "description": "W3C trace context; neither hashed nor signed."},
    },
}


def _first_sentence(event: type[Event]) -> str:
    return " ".join((event.__doc__ or event.wire).split("\n\n")[0].split())


def _guests() -> tuple[Json, Json, Json]:
    """The message for events of guests, whose data may have any form."""
    address = subjects.fact(_SESSION, "guest_agent", "thing.happened").replace(
        f".{subjects.partition(_SESSION)}.{_SESSION}.guest.agent.thing_happened", ".{pp}.{session}.guest.{agent}.{name}"
    )
    summary = "A fact said by a guest agent, in a lane of its own."
    message = {
        "name": "guest.fact",
        "title": "GuestFact",
        "summary": summary,
        "contentType": "application/cloudevents+json",
        "headers": _HEADERS,
        "payload": _ref("schemas", "Envelope"),
    }
    return (
        {"guest.fact": _channel(address, summary, "guest.fact")},
        {"guest.fact": message},
        {"guest.says.fact": _operation("send", "guest.fact", summary, "guest.fact", role="guest")},
    )


def _live() -> tuple[Json, Json, Json]:
    """What is not in the log: samples, presence, dead letters and the wish to try one again."""
    letter = _object({"session": _TEXT, "heard": _TEXT, "failure": _TEXT, "error": _TEXT})
    passed = {"type": "string", "description": "An event that a guest heard and has nothing to say about."}
    beat = _object({"role": _TEXT}, {"passed": passed})
    told = {
        "telemetry": ("swarm.tm.{pp}.{session}.{kind}", "Samples that may expire.", {"type": "object"}),
        "heartbeat": ("swarm.sys.{role}.{instance}.hb", "An instance of a role is there.", beat),
        "dead_letter": ("swarm.dlq.{role}", "A handler gave up; its failure is in the log.", letter),
        "redrive": ("swarm.redrive.{role}", "A dead letter is to be tried once more.", {"type": "object"}),
    }
    channels = {name: _channel(address, summary, name) for name, (address, summary, _) in told.items()}
    messages = {name: _message(name, summary, payload) for name, (_, summary, payload) in told.items()}
    operations = {
        f"any.{'hears' if name == 'redrive' else 'says'}.{name}": _operation(
            "receive" if name == "redrive" else "send", name, summary, name, role="any"
        )
        for name, (_, summary, _) in told.items()
    }
    return channels, messages, operations


_SIGNED = _object(
    {
        "body": {**_TEXT, "description": "The body of the command, as the very text that is signed."},
        "time": {**_TEXT, "description": "When it was signed, such as 2026-01-01T00:00:00Z; a minute off at most."},
        "nonce": {**_TEXT, "pattern": "^[0-9a-f]{32}$", "description": "Drawn by chance; a command is taken once."},
        "signature": {
            **_TEXT,
            "description": "KEYID:BASE64URL of Ed25519 over the lines `stigmergy/command/1`, the fingerprint of the "
            "root, the subject, time, nonce, and (without a line's end) the hex SHA-256 of the body.",
        },
    }
)


def _commands(schemas: Schemas) -> tuple[Json, Json, Json]:
    """Requests and replies; the desk of any host answers, and one of them does."""
    summary = "A command as its signer sends it; the reply is that of the command."
    address = subjects.signed_command("signer", "right", "verb").replace(
        ".signer.right.verb", ".{signer}.{right}.{verb}"
    )
    queue: Json = {"bindings": {"nats": {"queue": "desk", "bindingVersion": _BINDING}}}
    channels = {"signed": _channel(address, summary, "signed")}
    messages = {"signed": _message("signed", summary, _SIGNED)}
    operations = {"desk.hears.signed": _operation("receive", "signed", summary, "signed", role="desk", **queue)}
    for name, kind in BODIES.items():
        asked, answered, summary = f"{name}.command", f"{name}.reply", kind.summary()
        channels[asked] = _channel(subjects.command(name), summary, asked)
        channels[answered] = _channel(REPLIES, "Comes to the reply subject of the request.", answered)
        messages[asked] = _message(asked, summary, schemas.bodies[name]) | {"x-stigmergy": {"right": kind.right}}
        reply = {"oneOf": [schemas.replies[name], _ref("schemas", "error")]}
        messages[answered] = _message(answered, "The answer, or why not: every problem with its cure.", reply)
        channel = {"$ref": f"#/channels/{answered}"}
        about = {
            "bindings": {"nats": {"queue": "desk", "bindingVersion": _BINDING}},
            "reply": {"channel": channel, "messages": [{"$ref": f"#/channels/{answered}/messages/{answered}"}]},
        }
        operations[f"desk.hears.{name}"] = _operation("receive", asked, summary, asked, role="desk", **about)
    return channels, messages, operations


def _message(name: str, summary: str, payload: Json) -> Json:
    return {"name": name, "summary": summary, "contentType": "application/json", "payload": payload}
