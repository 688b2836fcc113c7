"""What each command takes and what it answers, as JSON Schemas, and whether a body fits what is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from contracts.errors import InvalidInput, InvalidRequest, Problem
from contracts.request.reading import did_you_mean, shown
from contracts.request.training import FORMATS, QUANTIZATIONS
from contracts.session import ENDED
from contracts.trainer import Mode

Body = dict[str, Any]
"""What a command is given, and what it answers: an object of JSON."""

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
LINE_OF_TEXT: Schema = {"type": "string", "maxLength": 2000}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
SECONDS: Schema = {"type": "number", "minimum": 0}
PLACE: Schema = {"type": "integer", "minimum": 0}
COUNT: Schema = {"type": "integer", "minimum": 1}
TRUTH: Schema = {"type": "boolean"}
ANYTHING: Schema = {}

SESSION: Schema = {
    "type": "string",
    "description": "An id, a unique prefix of one, a request_id, `last` (the newest training) or `last-KIND`.",
}


def thing(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, closed: bool = False
) -> Schema:
    """An object with these members; others are allowed unless it is closed."""
    made: Schema = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        made["required"] = list(required)
    return made | ({"additionalProperties": False} if closed else {})


def listed(items: Schema) -> Schema:
    """The schema of a list of such items, of any length."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """The schema of a value of this schema or null."""
    return {"oneOf": [schema, {"type": "null"}]}


CHECKPOINT: Schema = {"type": "string", "description": "best, last, or a step."}

PROBLEM = thing({"path": TEXT, "message": TEXT, "cure": TEXT}, closed=True)
ERROR = thing(
    {"error": thing({"code": TEXT, "message": TEXT, "path": TEXT, "cure": TEXT}, {"problems": listed(PROBLEM)})},
    closed=True,
)
"""The answer when the answer is no; a refused request lists all its problems."""

STATES = ["requested", "preparing", "training", "paused", "finishing", *ENDED]

SUMMARY = thing(
    {
        "session": TEXT,
        "kind": TEXT,
        "name": TEXT,
        "state": {"enum": STATES},
        "step": WHOLE,
        "epoch": WHOLE,
        "weights_digest": nullable(TEXT),
        "metrics": {"type": "object", "additionalProperties": NUMBER},
        "artifacts": listed({"type": "object"}),
        "wall_s": NUMBER,
    },
    {
        "steps_total": nullable(WHOLE),
        "best_step": nullable(WHOLE),
        "last": nullable(thing({"step": WHOLE, "metrics": {"type": "object", "additionalProperties": NUMBER}})),
        "best_trial": {
            **nullable(thing({"number": WHOLE, "session": TEXT, "value": NUMBER, "parameters": {"type": "object"}})),
            "description": "Of a search that has ended: the trial with the best value.",
        },
        "range_test": {
            **nullable(
                thing(
                    {"suggestion": NUMBER, "steepest": NUMBER, "diverged_at": nullable(NUMBER)}
                    | {"rates": listed(NUMBER), "losses": listed(nullable(NUMBER))}
                )
            ),
            "description": "Of a range test: the learning rate that it suggests, and its curve.",
        },
        "refused": {**listed({"type": "object"}), "description": "Files of the model that could not be made, and why."},
        "interventions": {**listed({"type": "object"}), "description": "Changes of the plan, numbered from 1."},
        "events": WHOLE,
        "segments": WHOLE,
        "sealed": nullable(TEXT),
        "owed": listed(TEXT),
        "problem": nullable(thing({"code": TEXT, "message": TEXT, "cure": TEXT}, {"frame": TEXT})),
        "requested_at": TEXT,
        "parent": nullable(TEXT),
        "fork": nullable(
            thing({"session": TEXT, "step": WHOLE, "segment": WHOLE, "set": {"type": "object"}, "rows_without": WHOLE})
        ),
        "waits": {**TEXT, "description": "What it waits for; empty when it does not."},
        "verdict": {**nullable(TEXT), "description": "Of an audit that has ended: pass, fail or not-comparable."},
    },
)

LINE = thing(
    {
        "seq": {"type": "integer", "description": "The event's place in its session, from 1."},
        "stream_seq": WHOLE,
        "time": TEXT,
        "lane": TEXT,
        "laneseq": WHOLE,
        "name": TEXT,
        "understood": {"type": "boolean", "description": "Whether the lane has a say in this, and so it counts."},
        "id": TEXT,
        "cause": nullable(TEXT),
        "digest": TEXT,
        "data": ANYTHING,
    }
)

KEY = thing(
    {
        "key": TEXT,
        "role": TEXT,
        "public": TEXT,
        "guest": TRUTH,
        "in_force": TRUTH,
        "since": {"type": "integer", "description": "The sequence in the stream from which it counts."},
        "since_time": TEXT,
        "until": nullable({"type": "integer", "description": "The sequence from which it counts no more."}),
        "until_time": nullable(TEXT),
        "ended": nullable({"type": "string", "description": "`rotated`, or `revoked: ` and the reason."}),
    }
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One command: what it is for, the body that is sent, the body that comes back when the answer is yes."""

    summary: str
    body: Schema
    reply: Schema


_ONE = thing({"session": SESSION})
_WISHED = thing({"session": TEXT}, {"event": TEXT})
_BEGUN = thing({"session": TEXT})


def verbs(request: Schema, search: Schema) -> dict[str, Verb]:
    """Every command by name, with the bodies asked and answered; `request` and `search` are those of two commands."""
    return {
        "train": Verb(
            "Request a training session; the same request_id names the same session for ever.", request, _BEGUN
        ),
        "search": Verb("Request a search whose trials are sessions of their own.", search, _BEGUN),
        **VERBS,
    }


VERBS: dict[str, Verb] = {
    "trial": Verb(
        "Request a session as a trial of a search that goes on; whoever asks has read it once `seq` is reached.",
        thing({"parent": SESSION, "request": {"type": "object"}}, {"request_id": TEXT, "asked_by": LINE_OF_TEXT}),
        thing({"session": TEXT, "seq": WHOLE}),
    ),
    "fork": Verb(
        "Request a session that begins in the bits of another at a grid step of its path, or of a segment's line.",
        thing(
            {"session": SESSION, "step": PLACE},
            {
                "segment": COUNT,
                "set": {"type": "object", "description": "New values of the parent's request, by dotted path."},
                "without": {**listed(TEXT), "description": "Training rows to leave out, as `swarm trace` names them."},
                "request_id": TEXT,
                "asked_by": LINE_OF_TEXT,
                "under": {**TEXT, "description": "A proof that goes on, whose trial the fork is."},
            },
        ),
        thing({"session": TEXT, "rows_without": WHOLE, "seq": WHOLE}),
    ),
    "prove": Verb(
        "Request a proof of an intervention: two forks from the bits in which it took effect, with it and without.",
        thing(
            {"session": SESSION},
            {
                "intervention": {
                    "oneOf": [TEXT, COUNT],
                    "description": "Its event's id, or its number from 1; the last one unless given.",
                },
                "asked_by": LINE_OF_TEXT,
            },
        ),
        thing({"session": TEXT, "seq": WHOLE}),
    ),
    "export": Verb(
        "Want the model of a session as one more file.",
        thing(
            {"session": SESSION},
            {"format": {"enum": [*FORMATS]}, "quantize": {"enum": ["", *QUANTIZATIONS]}, "checkpoint": CHECKPOINT},
        ),
        _WISHED,
    ),
    "audit": Verb(
        "Audit a session by a session of its own, which cites what the ledger has signed; trainers share the work.",
        thing(
            {"session": SESSION},
            {"mode": {"enum": [*get_args(Mode)]}, "segments": COUNT, "seed": PLACE, "asked_by": LINE_OF_TEXT},
        ),
        thing({"session": TEXT, "of": TEXT, "seed": WHOLE}),
    ),
    "cancel": Verb("End a session now.", thing({"session": SESSION}, {"reason": LINE_OF_TEXT}), _WISHED),
    "pause": Verb("Let a session wait at the next grid step, until a person resumes it.", _ONE, _WISHED),
    "resume": Verb("Let a paused session go on.", _ONE, _WISHED),
    "admit": Verb(
        "Let a guest agent in: keys, a user on the server, a place in the keyring.",
        thing({"name": TEXT}, {"hears": listed(TEXT)}),
        thing({"name": TEXT, "lane": TEXT, "creds": TEXT, "key": TEXT}),
    ),
    "session": Verb(
        "A session as it stands; with `wait`, when it has ended or after so many seconds.",
        thing({"session": SESSION}, {"wait": SECONDS}),
        SUMMARY,
    ),
    "sessions": Verb(
        "Sessions, oldest first, as many as fit. Ask again with `after` = `next` until `ended`.",
        thing({}, {"after": TEXT}),
        thing({"sessions": listed(SUMMARY), "next": TEXT, "ended": TRUTH}),
    ),
    "events": Verb(
        "Events of a session after a position; with `wait`, a long poll. Ask again with `after` = `next`.",
        thing({"session": SESSION}, {"after": PLACE, "limit": COUNT, "wait": SECONDS}),
        thing({"session": TEXT, "events": listed(LINE), "next": WHOLE, "ended": TRUTH}),
    ),
    "status": Verb(
        "Who is there: the agents of this host, and every role whose heartbeat is heard.",
        thing({}),
        thing({"agents": listed({"type": "object"})}, {"roster": listed({"type": "object"}), "seq": WHOLE}),
    ),
    "dlq": Verb(
        "What could not be handled, and the newest stored messages that were not admitted, with the reasons.",
        thing({}),
        thing({"letters": listed({"type": "object"}), "voids": listed({"type": "object"})}),
    ),
    "keys": Verb(
        "Every key that there was, and from when until when it counts.", thing({}), thing({"keys": listed(KEY)})
    ),
    "rotate": Verb(
        "A new key for a role or a guest; who runs goes on with it, what was said before stays.",
        thing({"role": TEXT}),
        thing({"role": TEXT, "old": TEXT, "key": TEXT}),
    ),
    "revoke": Verb(
        "A key (by its id, its role or its guest) counts no more; a built-in role goes on with a new one.",
        thing({"key": TEXT, "reason": LINE_OF_TEXT}),
        thing({"role": TEXT, "old": TEXT, "key": nullable(TEXT)}),
    ),
    "redrive": Verb("Try a recorded failure of a handler once more.", thing({"failure": TEXT}), _WISHED),
}
"""Every command but those whose bodies are requests."""


def refuse_misfits(verb: str, body: Mapping[str, Any]) -> None:
    """`InvalidRequest` lists every member of a body that is not as published; what is null was not given."""
    schemas: Mapping[str, Schema] = VERBS[verb].body["properties"] if verb in VERBS else {}
    given = ((name, body[name], schema) for name, schema in schemas.items() if body.get(name) is not None)
    problems = [Problem(name, *wrong) for name, value, schema in given if (wrong := _misfit(value, schema))]
    if problems:
        raise InvalidRequest(problems)


LONGEST_NAME = 200
"""Characters of a request_id, and of who asks."""

MOST_KEYS = 1000
"""Keys of one mapping in a request: far more than any has, and few enough to be judged at once."""

MOST_VALUES = 5000
"""Values in a whole request, for the same reason: each may be wrong, and what is wrong with it is found in one step."""

_WEIGHTS: Mapping[str, tuple[tuple[type, ...], float]] = {
    "class_weights": ((int, float), 1e9),
    "repeats": ((int,), 1e6),
}
"""Options that may have a number for each of very many classes, and what is surely such a number; it is not counted."""


def refuse_crowded(body: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for a request with so many keys or values that judging them would block the host."""
    values, rest = 0, list[tuple[str, Any]]([("", body)])
    while rest:
        name, value = rest.pop()
        if isinstance(value, dict) and len(value) > MOST_KEYS:
            message = f"the request has {len(value)} keys in one place, and {MOST_KEYS} are the most."
            raise InvalidInput(message, cure="See what a request may hold: swarm init")
        inside = list(value.items()) if isinstance(value, dict) else []
        if isinstance(value, list):
            kinds, largest = _WEIGHTS.get(name, ((), 0.0))
            inside = [(name, one) for one in value if type(one) not in kinds or not 0 <= one <= largest]
        rest += inside
        values += len(inside)
        if values > MOST_VALUES:
            message = f"the request has more than {MOST_VALUES} values; {shown(name)} has many of them."
            raise InvalidInput(message, cure="See what a request may hold: swarm init", path=name)


_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "text"),
    "integer": (int, "a whole number"),
    "number": ((int, float), "a number"),
    "array": (list, "a list"),
    "object": (dict, "an object"),
}


def _misfit(value: Any, schema: Schema) -> tuple[str, str] | None:
    """What is wrong with a member, and the cure; None when it fits, or one of several schemas that it may have."""
    if "oneOf" in schema:
        misfits = [_misfit(value, one) for one in schema["oneOf"]]
        return None if None in misfits else misfits[0]
    if "enum" in schema:
        return (
            None
            if value in schema["enum"]
            else (f"{shown(value)} is not known", did_you_mean(value, filter(None, schema["enum"])))
        )
    kinds, words = _KINDS[schema["type"]]
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits:
        return f"{shown(value)} is not {words}", f"Give {words}."
    if "minimum" in schema and value < schema["minimum"]:
        return f"{shown(value)} is out of bounds", f"Give {schema['minimum']} or more."
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        return f"has {len(value)} characters", f"Give {schema['maxLength']} or fewer."
    inside = (_misfit(one, schema["items"]) for one in value) if "items" in schema else ()
    return next(filter(None, inside), None)


def read_checked(body: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> tuple[dict[str, Any], str, str | None]:
    """The resolved request, who asked, and its request_id; what is wrong with any of them is in one answer."""
    refuse_crowded(body)
    request_id, asked_by = body.pop("request_id", None), body.pop("asked_by", "client")
    problems = [
        Problem(name, f"{shown(value)} is no text of 1 to {LONGEST_NAME} characters", "Write such a text.")
        for name, value in (("request_id", request_id), ("asked_by", asked_by))
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= LONGEST_NAME)
    ]
    try:
        request = read(body)
    except InvalidRequest as error:
        raise InvalidRequest([*error.problems, *problems]) from None
    if problems:
        raise InvalidRequest(problems)
    return request.resolved(), asked_by or "client", request_id
