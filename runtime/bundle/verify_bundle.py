"""Verifies a Stigmergy bundle. One file; it needs Python 3.9 or newer and `cryptography` or `PyNaCl`, nothing else.

    python verify_bundle.py FILE [--root FINGERPRINT] [--anchor FILE] [--json]      exit code: 0 pass, 3 fail, 2 usage

A bundle is the record of one training session: signed events, the keys that signed them, and bytes that the events
name. This program is a second, independent implementation of the checks of `swarm audit FILE`; it shares no code with
the software that wrote the bundle, so that whoever does not trust that software can read this instead. It runs nothing
that lies in the bundle and writes nothing. The copy inside a bundle was named by the bundle's seal; trust the copy
that you got elsewhere. Without --root it shows that the bundle is consistent, not whose it is.

The order below is the order of the checks: 1 the file, 2 its records, 3 the keys, 4 the events, 5 the ledger's trees
and the seal, 6 the bytes that events name, 7 what the log says against itself, 8 notes that were kept elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import re
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    def ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature holds."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

except ImportError:
    try:
        from nacl.exceptions import BadSignatureError  # type: ignore[import-not-found,unused-ignore]
        from nacl.signing import VerifyKey  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        sys.stderr.write(
            "Signatures cannot be verified: Python has neither 'cryptography' nor 'PyNaCl'. "
            "Install one: python -m pip install cryptography\n"
        )
        raise SystemExit(2) from None

    def ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature holds."""
        try:
            VerifyKey(public).verify(message, signature)
        except (BadSignatureError, ValueError):
            return False
        return True


class Broken(Exception):
    """Something does not hold; the message says where and what."""


def need(holds: object, message: str) -> None:
    """Go on if it holds."""
    if not holds:
        raise Broken(message)


def sha256(data: bytes) -> str:
    """Lower-case hex."""
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- 1. the file: a ZIP archive with only one spelling

SIZES, PLACES = struct.Struct("<HHQQ"), struct.Struct("<HHQQQ")
LOCAL, CENTRAL = struct.Struct("<4sHHHHHIIIHH"), struct.Struct("<4sHHHHHHIIIHHHHHII")
FAR, DATE, UTF8, UNIX = 0xFFFFFFFF, 0x0021, 0x0800, 0x032D


def local_header(name: bytes, size: int, crc: int) -> bytes:
    """What stands before a member's bytes."""
    fixed = LOCAL.pack(b"PK\3\4", 45, UTF8, 0, 0, DATE, crc, FAR, FAR, len(name), SIZES.size)
    return fixed + name + SIZES.pack(1, 16, size, size)


def directory(found: Sequence[tuple[bytes, int, int, int]], start: int) -> bytes:
    """What stands behind the last member's bytes."""
    entries = b""
    for name, place, size, crc in found:
        fixed = (b"PK\1\2", UNIX, 45, UTF8, 0, 0, DATE, crc, FAR, FAR, len(name), PLACES.size)
        entries += CENTRAL.pack(*fixed, 0, 0, 0, 0o100644 << 16, FAR) + name + PLACES.pack(1, 24, size, size, place)
    count, size = len(found), len(entries)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, UNIX, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
    return entries + end64 + locator + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, FAR, FAR, 0)


def members_of(data: memoryview) -> dict[str, memoryview]:
    """The members in the order of the file, if every other byte is the one that must stand there."""
    found: list[tuple[bytes, int, int, int]] = []
    members: dict[str, memoryview] = {}
    place = 0
    while bytes(data[place : place + 4]) == b"PK\3\4":
        need(len(data) >= place + LOCAL.size, f"byte {place}: the file ends inside a header")
        length = int.from_bytes(data[place + 26 : place + 28], "little")
        name = bytes(data[place + LOCAL.size : place + LOCAL.size + length])
        begin = place + LOCAL.size + length + SIZES.size
        need(len(data) >= begin, f"byte {place}: the file ends inside a header")
        size = SIZES.unpack(data[begin - SIZES.size : begin])[2]
        content = data[begin : begin + size]
        crc = zlib.crc32(content)
        found_header, header = bytes(data[place:begin]), local_header(name, size, crc)
        at = next((n for n in range(len(header)) if found_header[n : n + 1] != header[n : n + 1]), 0)
        about = f"the header or the content of {name.decode(errors='replace')!r}"
        need(found_header == header and len(content) == size, f"byte {place + at}: {about} is not as it was written")
        try:
            members[name.decode()] = content
        except UnicodeDecodeError:
            raise Broken(f"byte {place}: {name!r} is no name") from None
        found.append((name, place, size, crc))
        place = begin + size
    need(bytes(data[place:]) == directory(found, place), f"byte {place}: the directory is not as it was written")
    need(len(members) == len(found), "two members have one name")
    return members


# ---------------------------------------------------------------- 2. records: one message of the log each


class Record(NamedTuple):
    """A message: its place in the whole stream, its subject, its signature header (or none), its body."""

    seq: int
    subject: str
    signature: str
    body: bytes

    @property
    def digest(self) -> str:
        """As the next event of the lane names it."""
        return sha256(self.body)

    @property
    def leaf(self) -> bytes:
        """The hash of its leaf in the ledger's tree."""
        kept = f"Swarm-Sig:{self.signature}\n" if self.signature else ""
        headers = sha256(f"stigmergy/headers/1\n{kept}".encode())
        text = f"stigmergy/leaf/1\n{self.seq}\n{self.subject}\n{self.digest}\n{headers}\n"
        return hashlib.sha256(b"\x00" + text.encode()).digest()


TITLE = re.compile(rb"stigmergy/log/1 ([a-z0-9-]+)\n")
HEAD = re.compile(rb"([1-9][0-9]{0,18}) ([!-~]+) (0|[1-9][0-9]{0,9}) ([!-~]+) ([0-9a-f]{64})\n")


def records_of(name: str, data: bytes) -> tuple[str, list[Record]]:
    """The session that the member is the log of, and its records."""
    title = TITLE.match(data)
    if title is None:
        raise Broken(f"{name}: this is not the beginning of a log")
    found: list[Record] = []
    place, last = title.end(), 0
    while place < len(data):
        head = HEAD.match(data, place)
        if head is None:
            raise Broken(f"{name}: no record at byte {place}, after record {last}")
        body = data[head.end() : head.end() + int(head[3])]
        end = head.end() + len(body)
        checked = sha256(data[place : head.start(5) - 1] + b"\n" + body).encode() == head[5]
        need(checked and data[end : end + 1] == b"\n", f"{name}: the record after record {last} is damaged")
        signature = "" if head[4] == b"-" else head[4].decode()
        record = Record(int(head[1]), head[2].decode(), signature, body)
        need(record.seq > last, f"{name}: record {record.seq} stands after record {last}")
        found.append(record)
        place, last = end + 1, record.seq
    return title[1].decode(), found


# ---------------------------------------------------------------- 3. keys: who may sign what, from where to where


class Key:
    """A public key, the role it speaks for, and the half-open interval of stream sequences in which it counts."""

    def __init__(self, public: str, role: str, since: int, hears: Sequence[str] = ()) -> None:
        self.public, self.role, self.since, self.hears = public, role, since, tuple(hears)
        self.until: int | None = None

    def valid(self, seq: int) -> bool:
        """Whether a message at this sequence may stand on the key."""
        return self.since <= seq and (self.until is None or seq < self.until)


def fingerprint(public: str) -> str:
    """What people compare."""
    return sha256(bytes.fromhex(public))


def keyring_session(public: str, partition: str) -> str:
    """The only session in which a root with this public key may keep its keys."""
    value = int.from_bytes(hashlib.sha256(f"keyring\x1f{fingerprint(public)}".encode()).digest()[:16], "big")
    value = value & ~(0xF << 76) & ~(3 << 62) | 8 << 76 | 2 << 62
    return f"{partition}-{base64.b32encode(value.to_bytes(16, 'big')).decode().rstrip('=').lower()}"


class Keyring:
    """The keys as of the events told so far; `tell` refuses what the keyring's own rules do not allow."""

    def __init__(self, session: str, root: str) -> None:
        self.session, self.pinned, self.root = session, root, ""
        self.keys: dict[str, Key] = {}

    def opening(self, lane: str, schema: str, data: Any) -> Key | None:
        """The key that the first event of a keyring brings and is itself signed with."""
        if self.root or lane != "root" or not schema.startswith("keyring.opened/") or not isinstance(data, dict):
            return None
        public = str(data.get("root"))
        need(re.fullmatch("[0-9a-f]{64}", public), "the keyring is opened by something that is no key")
        other = f"its keys are those of root {fingerprint(public)}, and root {self.pinned} is to be trusted"
        need(not self.pinned or fingerprint(public) == self.pinned, other)
        own = keyring_session(public, self.session.partition("-")[0])
        need(own == self.session, "the keyring's id does not derive from its root")
        return Key(public, "root", 0)

    def current(self, role: str) -> Key | None:
        """The key that speaks for a role now."""
        return next((key for key in self.keys.values() if key.role == role and key.until is None), None)

    def tell(self, seq: int, lane: str, name: str, data: dict[str, Any]) -> None:
        """One more admitted event."""
        need((name == "keyring.opened") == (not self.root), "the keyring is opened once, and first")
        need(lane != "desk" or (name == "key.admitted" and data["guest"]), "the desk may admit guests and nothing else")
        if name == "keyring.opened":
            self.root = data["root"]
            self._add(Key(data["root"], "root", seq))
        elif name == "key.admitted":
            role, guest = data["role"], data["guest"]
            need(role not in ("root", "operator", "guest_"), f"{role!r} is no role that a key can have")
            need(guest == role.startswith("guest_"), f"{role!r} and guest do not fit")
            need(not data["may_admit"] or role == "desk", "only the desk may admit others")
            current, hears = self.current(role), tuple(data["hears"] or ())
            if current and guest and current.public == data["public"]:
                need(current.hears != hears, f"{role!r} is admitted already, to hear just that")
                current.hears = hears
                return
            need(current is None, f"{role!r} has a key already")
            self._add(Key(data["public"], role, seq, hears))
        elif name == "key.rotated":
            before = self._end(data["old"], seq)
            need(before.role == data["role"], "the key is not that role's")
            self._add(Key(data["public"], before.role, seq, before.hears))
        elif name == "key.revoked":
            self._end(data["key"], seq)

    def _add(self, key: Key) -> None:
        named = fingerprint(key.public)[:16]
        need(named not in self.keys, f"key {named} was admitted before")
        self.keys[named] = key

    def _end(self, named: str, seq: int) -> Key:
        key = self.keys.get(named)
        if key is None or key.until is not None or key.role == "root":
            raise Broken(f"key {named} cannot end here")
        key.until = seq
        return key


# ---------------------------------------------------------------- 4. events: form, place, chain, signature, schema


class Event(NamedTuple):
    """An event that was verified in its place."""

    record: Record
    lane: str
    name: str
    schema: str
    data: Any


TEXTS = {"specversion": 3, "id": 64, "source": 200, "type": 200, "time": 40, "dataschema": 120, "prev": 64}
PLAIN = {*TEXTS, "subject", "datacontenttype", "lane", "laneseq", "data"}
OPTIONAL = {"causationid": str, "correlationid": str, "epoch": int, "step": int}


DEEPEST, LONGEST_INTEGER, GUEST_BODY = 200, 4300, 65536
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
MARK = re.compile(r"[\[\]{}]|[^\s,:\[\]{}]+")
INTEGER = re.compile(r"(?<![0-9.eE+-])-?([0-9]+)")
ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u(?![dD][89a-fA-F])....|[^u]|(u))", re.DOTALL)


def too_deep(text: str) -> bool:
    """Whether a value stands inside more arrays and objects than it may."""
    depth = 0
    if text.count("[") + text.count("{") > DEEPEST:
        for mark in MARK.finditer(STRING.sub('""', text)):
            if mark[0] in "]}":
                depth -= 1
            elif depth > DEEPEST:
                return True
            elif mark[0] in "[{":
                depth += 1
    return False


def longest_integer(text: str) -> int:
    """The digits of the longest number, without what stands behind its point."""
    if len(text) <= LONGEST_INTEGER:
        return 0
    return max((len(one) for one in INTEGER.findall(STRING.sub('""', text))), default=0)


def json_of(body: bytes, rules: int) -> Any:
    """What the bytes say, if they are JSON as docs/log-format.md defines it; rules 1 let NaN and infinities be."""
    constants: list[str] = []

    def constant(word: str) -> float:
        constants.append(word)
        return float(word)

    try:
        text = body.decode()
        need(not too_deep(text), "the body is no JSON: it is nested too deep")
        need(longest_integer(text) <= LONGEST_INTEGER, "the body is no JSON: a number in it is too long")
        said = json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError):
        raise Broken("the body is no JSON") from None
    half = "\\u" in text and any(one[1] for one in ESCAPE.finditer(text))
    need(not half, "the body is no JSON: a text in it has half a surrogate pair")
    need(rules < 2 or not constants, f"the body is no JSON: it has {constants[:1]}")
    return said


def envelope_of(record: Record, session: str, rules: int) -> dict[str, Any]:
    """The envelope, if it is one and says what the subject says."""
    said = json_of(record.body, rules)
    need(isinstance(said, dict) and said.keys() >= PLAIN and said.keys() <= PLAIN | OPTIONAL.keys(), "no envelope")
    for name, longest in TEXTS.items():
        need(isinstance(said[name], str) and len(said[name]) <= longest, f"{name} is not what it must be")
    for name, kind in OPTIONAL.items():
        need(said.get(name) is None or type(said[name]) is kind, f"{name} is not what it must be")
    need(said["specversion"] == "1.0" and said["datacontenttype"] == "application/json", "no CloudEvent")
    need(said["id"] and said["source"] and said["subject"] == session, "it is of another session")
    lane, named = said["lane"], re.fullmatch(r"(.+)/([0-9]+)", said["dataschema"])
    need(isinstance(lane, str) and re.fullmatch(r"[a-z0-9_-]{1,64}", lane), "it has no lane")
    need(type(said["laneseq"]) is int and said["laneseq"] > 0, "it has no place in its lane")
    need(re.fullmatch("[0-9a-f]{64}", said["prev"]), "it has no predecessor")
    need(named and int(named[2]) > 0, "dataschema is not NAME/VERSION")
    name = named[1] if named else ""
    need(said["type"] == f"io.stigmergy.{lane}.{name}", "its type is not that of lane and schema")
    tokens = f"guest.{lane[6:]}" if lane.startswith("guest_") else lane
    partition = session.partition("-")[0]
    subject = f"swarm.ev.{partition}.{session}.{tokens}.{name.replace('.', '_')}"
    need(record.subject == subject, f"its subject is {record.subject!r}")
    return dict(said)


RULES = 2


def rules_of(said: dict[str, Any]) -> int:
    """The rules by which the session that begins with this event is admitted; versions 1 and 2 do not name them."""
    name, _, version = said["dataschema"].rpartition("/")
    begins = said["lane"] == "operator" and name == "session.requested" and int(version) >= 3
    rules = said["data"].get("rules") if begins and isinstance(said["data"], dict) else 1
    need(type(rules) is not int or rules <= RULES, f"it is admitted by rules {rules}; this program knows up to {RULES}")
    return rules if type(rules) is int else 1


class Reader:
    """Admits the records of one session, each append as a whole: the last event of an append carries its signature."""

    def __init__(self, member: str, session: str, ring: Keyring, schemas: dict[str, Any]) -> None:
        self.member, self.session, self.ring, self.schemas = member, session, ring, schemas
        self.events: list[Event] = []
        self.heads: dict[str, tuple[int, str]] = {}
        self.unknown = self.rules = 0
        self._ids: set[str] = set()
        self._waiting: list[tuple[Record, dict[str, Any]]] = []

    def read(self, records: Iterable[Record]) -> list[Event]:
        """All of them, or `Broken` with the first that does not hold."""
        position = 0
        for position, record in enumerate(records, 1):
            try:
                self._take(record)
            except Broken as broken:
                where = position - len(self._waiting)
                raise Broken(f"{self.member}: event {where}, record {record.seq}: {broken}") from None
        need(not self._waiting, f"{self.member}: event {position}: the signature of the last append is missing")
        return self.events

    def _take(self, record: Record) -> None:
        self.rules = self.rules or rules_of(envelope_of(record, self.session, 1))
        said = envelope_of(record, self.session, self.rules)
        large = said["lane"].startswith("guest_") and len(record.body) > GUEST_BODY
        need(self.rules < 2 or not large, f"a guest's event has {len(record.body)} bytes")
        lane, waiting = said["lane"], self._waiting
        count, head = self.heads.get(lane, (0, "0" * 64))
        if waiting:
            before = waiting[-1][0]
            need(record.seq == before.seq + 1 and lane == waiting[-1][1]["lane"], "an append is broken off")
            count, head = count + len(waiting), before.digest
        need(said["laneseq"] == count + 1, f"laneseq {said['laneseq']} where {count + 1} is next")
        need(said["prev"] == head, f"prev {said['prev']} where the lane ends in {head}")
        waiting.append((record, said))
        need(len(waiting) <= 1000 - (not record.signature), "an append is too long")
        if record.signature:
            self._verify(record, said)
            self._commit()

    def _verify(self, record: Record, said: dict[str, Any]) -> None:
        text = re.fullmatch(r"([0-9a-f]{16}):([A-Za-z0-9_-]{86})", record.signature)
        raw = base64.urlsafe_b64decode(text[2] + "==") if text else b""
        need(text and base64.urlsafe_b64encode(raw).decode()[:86] == text[2], "the signature is not in its form")
        named, lane, inside = (text[1] if text else ""), said["lane"], self.session == self.ring.session
        need(inside == (lane in ("root", "desk")), f"lane {lane!r} has no place in this session")
        first = self._waiting[0][1]
        need(not inside or first is said or self.ring.root, "the keyring is not open")
        opening = inside and self.ring.opening(lane, said["dataschema"], said["data"])
        key = opening or self.ring.keys.get(named)
        role = "desk" if lane == "operator" else lane
        if not key or fingerprint(key.public)[:16] != named or key.role != role or not key.valid(record.seq):
            raise Broken(f"key {named} does not speak for {role!r} here")
        message = b"stigmergy/sig/1\n" + hashlib.sha256(record.body).digest()
        need(ed25519(bytes.fromhex(key.public), message, raw), f"the signature of key {named} does not hold")

    def _commit(self) -> None:
        lane = self._waiting[-1][1]["lane"]
        need(self.events or not lane.startswith("guest_"), "a guest cannot begin a session")
        for record, said in self._waiting:
            own = f"{lane}/{said['id']}" if lane.startswith("guest_") else said["id"]
            need(said["id"] not in self._ids and own not in self._ids, f"id {said['id']!r} was said before")
            last_said = self.events[-1] if self.events else None
            sealed = last_said and (last_said.lane, last_said.name) == ("ledger", "session.sealed")
            need(not sealed, "something follows the seal")
            event = Event(record, lane, said["dataschema"].rpartition("/")[0], said["dataschema"], said["data"])
            meant = self._meaning(event)
            if self.session == self.ring.session:
                need(meant.data is not None, "this is nothing that a keyring may hold")
                self.ring.tell(record.seq, lane, meant.name, meant.data)
            self.events.append(meant)
            self._ids |= {said["id"] if not lane.startswith("guest_") else own}
        last, said = self._waiting[-1]
        self.heads[lane] = (said["laneseq"], last.digest)
        self._waiting.clear()

    def _meaning(self, event: Event) -> Event:
        """The event, its data None when nobody is bound by what it says: strangers' types, guests' borrowed names."""
        about = self.schemas.get(event.schema)
        if about is None:
            self.unknown += 1
            return event._replace(data=None)
        told = event.data.get("role") if isinstance(event.data, dict) else None
        speaks = {event.lane, "*"} & set(about["said_by"]) or (about["said_by"] == ["role"] and told == event.lane)
        wrong = "" if speaks else f"lane {event.lane!r} has no say in it"
        wrong = wrong or mismatch(event.data, about["schema"], about["schema"], "data")
        if wrong and event.lane.startswith("guest_"):
            self.unknown += 1
            return event._replace(data=None)
        need(not wrong, f"{event.schema}: {wrong}")
        return event._replace(data=with_defaults(event.data, about["schema"]))


KINDS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) is int or (type(value) is float and math.isfinite(value)),
    "null": lambda value: value is None,
}


def mismatch(value: Any, schema: Any, top: Any, where: str) -> str:
    """What is wrong with a value under a JSON Schema, as far as the schemas of events use the language."""
    if schema is True:
        return ""
    if "$ref" in schema:
        return mismatch(value, top["$defs"][schema["$ref"].rpartition("/")[2]], top, where)
    if "anyOf" in schema:
        tried = [mismatch(value, one, top, where) for one in schema["anyOf"]]
        return "" if "" in tried else tried[0]
    wrong = mismatch_of_form(value, schema)
    if wrong:
        return f"{where} {wrong}"
    return next((told for at, one, rule in inside(value, schema) if (told := mismatch(one, rule, top, where + at))), "")


def mismatch_of_form(value: Any, schema: Any) -> str:
    """What is wrong with the value itself."""
    if "type" in schema and not KINDS[schema["type"]](value):
        return f"is no {schema['type']}"
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return "is none of the values it can have"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
        return "has another form"
    if type(value) in (int, float) and value < schema.get("minimum", value):
        return "is too small"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        closed = schema.get("additionalProperties", True) is False
        extra = [name for name in value if closed and name not in schema.get("properties", {})]
        return f"{(missing + extra)[0]!r} is missing or too much" if missing or extra else ""
    return ""


def inside(value: Any, schema: Any) -> Iterator[tuple[str, Any, Any]]:
    """What a value holds: where, what, and the schema it must fit."""
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        yield from ((f".{name}", one, known.get(name, other)) for name, one in value.items())
    elif isinstance(value, list) and "items" in schema:
        yield from ((f"[{n}]", one, schema["items"]) for n, one in enumerate(value))


def with_defaults(data: Any, schema: dict[str, Any]) -> Any:
    """The data with what a writer may leave out."""
    return {name: one.get("default") for name, one in schema.get("properties", {}).items()} | data


# ---------------------------------------------------------------- 5. the ledger: trees, notes, the seal


def roots_of(leaves: Iterable[bytes]) -> list[bytes]:
    """The RFC 6962 root over the first n leaf hashes, for every n."""
    peaks: list[bytes] = []
    roots = [hashlib.sha256(b"").digest()]
    for count, leaf in enumerate(leaves):
        node, carries = leaf, count
        while carries & 1:
            node, carries = hashlib.sha256(b"\x01" + peaks.pop() + node).digest(), carries >> 1
        peaks.append(node)
        for peak in reversed(peaks[:-1]):
            node = hashlib.sha256(b"\x01" + peak + node).digest()
        roots.append(node)
    return roots


def note_text(session: str, size: int, root: bytes, lines: Sequence[str]) -> str:
    """What a note says, as it is signed."""
    return "\n".join([f"stigmergy/{session}", str(size), base64.b64encode(root).decode(), *lines]) + "\n"


def signed_by(note: str, keys: Iterable[Key]) -> bool:
    """Whether one of these keys signed the note, and the note is spelled as it must be."""
    text, _, line = note.partition("\n\n")
    origin = text.partition("\n")[0]
    try:
        raw = base64.b64decode(line.rpartition(" ")[2].rstrip("\n"), validate=True)
    except ValueError:
        return False
    if note != f"{text}\n\n\u2014 {origin} {base64.b64encode(raw).decode()}\n" or len(raw) != 68:
        return False
    for key in keys:
        public = bytes.fromhex(key.public)
        named = hashlib.sha256(origin.encode() + b"\n\x01" + public).digest()[:4]
        if raw[:4] == named and ed25519(public, f"{text}\n".encode(), raw[4:]):
            return True
    return False


def members_digest(members: dict[str, str]) -> str:
    """One digest over everything that a seal names."""
    lines = "".join(f"{name} {members[name]}\n" for name in sorted(members))
    return sha256(f"stigmergy/members/1\n{lines}".encode())


def check_ledger(session: str, events: list[Event], ring_events: list[Event], keys: Iterable[Key]) -> Event:
    """Every note and the seal against the records; the seal."""
    roots = roots_of(event.record.leaf for event in events)
    ring_roots = roots_of(event.record.leaf for event in ring_events)
    ledger = [key for key in keys if key.role == "ledger"]
    for position, event in enumerate(events, 1):
        if event.lane != "ledger" or event.name not in ("ledger.checkpointed", "session.sealed"):
            continue
        said, lines = event.data, [f"last-seq {event.data['last_seq']}"]
        where = f"log: event {position}, {event.name}"
        need(0 < said["size"] < position, f"{where}: it covers {said['size']} events")
        need(roots[said["size"]].hex() == said["root"], f"{where}: the root over {said['size']} events is another")
        need(events[said["size"] - 1].record.seq == said["last_seq"], f"{where}: last_seq is another")
        if event.name == "session.sealed":
            check_seal(where, said, events, ring_roots)
            lines += [f"keyring {said['keyring_size']} {said['keyring_root']}"]
            lines += [f"members {members_digest(said['members'])}"]
        text = note_text(session, said["size"], roots[said["size"]], lines)
        need(said["note"].partition("\n\n")[0] + "\n" == text, f"{where}: its note says something else")
        valid = [key for key in ledger if key.valid(event.record.seq)]
        need(signed_by(said["note"], valid), f"{where}: its note is not signed by the ledger")
    need(events and events[-1].lane == "ledger" and events[-1].name == "session.sealed", "log: it ends without a seal")
    return events[-1]


def check_seal(where: str, said: dict[str, Any], events: list[Event], ring_roots: list[bytes]) -> None:
    """Lane heads, keyring and who spoke last."""
    covered, later = events[: said["size"]], events[said["size"] :]
    need(all(event.lane == "ledger" for event in later), f"{where}: somebody spoke after what it covers")
    need({event.lane: event.record.digest for event in covered} == said["lanes"], f"{where}: other lane heads")
    need(said["keyring"] == events[0].data["keyring"], f"{where}: another keyring than the genesis names")
    need(said["keyring_size"] == len(ring_roots) - 1, f"{where}: the keyring has {len(ring_roots) - 1} events")
    need(ring_roots[-1].hex() == said["keyring_root"], f"{where}: the root of the keyring is another")


# ---------------------------------------------------------------- 6. bytes that events name

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
TURN = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIX = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)
START, END, PARENT, ROOT = 1, 2, 4, 8
CHUNK, WIDE = 1024, 1024


def blake3(data: memoryview | bytes) -> str:
    """BLAKE3 in plain Python, many chunks at a time: a long integer holds one 32-bit word of each in 64-bit lanes."""
    view = memoryview(data)
    whole = max(0, len(view) - 1) // CHUNK
    if not whole:
        return last_chunk(view, 0, ROOT)[:64]
    nodes: list[bytes] = []
    for first in range(0, whole, WIDE):
        count = min(WIDE, whole - first)
        nodes += chunks(view[first * CHUNK : (first + count) * CHUNK], first, count)
    nodes.append(bytes.fromhex(last_chunk(view[whole * CHUNK :], whole, 0)))
    while len(nodes) > 2:
        pairs = len(nodes) // 2
        joined = parents(b"".join(nodes[: 2 * pairs]), pairs, PARENT)
        nodes = joined + nodes[2 * pairs :]
    return parents(b"".join(nodes), 1, PARENT | ROOT)[0].hex()


def chunks(data: memoryview, first: int, count: int) -> list[bytes]:
    """The chaining values of whole chunks."""
    words, state = words_of(data), [spread([one] * count) for one in IV]
    low, high = (spread([(first + n) >> shift & FAR for n in range(count)]) for shift in (0, 32))
    for block in range(16):
        flags = (START if block == 0 else 0) | (END if block == 15 else 0)
        message = [spread(words[16 * block + n :: 256]) for n in range(16)]
        state = compress(state, message, (low, high, 64, flags), count)
    return values(state, count)


def parents(data: bytes, count: int, flags: int) -> list[bytes]:
    """The chaining values of nodes over pairs of chaining values."""
    words = words_of(memoryview(data))
    message = [spread(words[n::16]) for n in range(16)]
    return values(compress([spread([one] * count) for one in IV], message, (0, 0, 64, flags), count), count)


def last_chunk(data: memoryview, number: int, flags: int) -> str:
    """The chaining value of the last chunk, which may be short."""
    state = list(IV)
    blocks = max(1, -(-len(data) // 64))
    for n in range(blocks):
        block = bytes(data[64 * n : 64 * n + 64])
        own = (START if n == 0 else 0) | (END | flags if n == blocks - 1 else 0)
        words = list(words_of(memoryview(block.ljust(64, b"\0"))))
        state = compress(state, words, (number & FAR, number >> 32, len(block), own), 1)
    return values(state, 1)[0].hex()


def compress(state: list[int], message: list[int], about: tuple[int, int, int, int], count: int) -> list[int]:
    """The compression function on `count` states at once."""
    ones = int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
    mask, (low, high, length, flags) = FAR * ones, about
    v = [*state, *(one * ones for one in IV[:4]), low, high, length * ones, flags * ones]
    for _ in range(7):
        for n, (a, b, c, d) in enumerate(MIX):
            for word, right, then in ((message[2 * n], 16, 12), (message[2 * n + 1], 8, 7)):
                v[a] = v[a] + v[b] + word & mask
                turned = v[d] ^ v[a]
                v[d] = (turned >> right | turned << 32 - right) & mask
                v[c] = v[c] + v[d] & mask
                turned = v[b] ^ v[c]
                v[b] = (turned >> then | turned << 32 - then) & mask
        message = [message[n] for n in TURN]
    return [v[n] ^ v[n + 8] for n in range(8)]


def words_of(data: memoryview) -> array[int]:
    """The bytes as little-endian 32-bit words."""
    words = array("I", bytes(data))
    if sys.byteorder == "big":
        words.byteswap()
    return words


def spread(words: Iterable[int]) -> int:
    """Words side by side in one long integer."""
    lanes = array("Q", words)
    if sys.byteorder == "big":
        lanes.byteswap()
    return int.from_bytes(lanes.tobytes(), "little")


def values(state: list[int], count: int) -> list[bytes]:
    """The states as `count` values of 32 bytes."""
    rows = [one.to_bytes(8 * count, "little") for one in state]
    return [b"".join(row[8 * n : 8 * n + 4] for row in rows) for n in range(count)]


MANIFEST = "dataset/manifest.json"
SECTIONS = ("manifest", "sources", "exports", "checkpoints", "dataset")
PIECE = 1 << 22


def blobs_of(events: list[Event]) -> dict[str, dict[str, str]]:
    """What the events name, by section: the name that the seal gives it, and its digest."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    written: list[tuple[tuple[int, int], str]] = []
    inherited: dict[str, str] = {}
    begun: dict[str, str] = {}
    for event in events:
        said = event.data
        if said is None:
            continue
        if event.name == "session.requested":
            more = (said.get("fork") or {}).get("more")
            inherited = {"inherited": more} if more else {}
        elif event.name == "training.claimed":
            found["sources"] = {f"source/{name}": digest for name, digest in said["sources"].items()}
            begun = {"initial": said["initial"]} if said.get("initial") else {}
        elif event.name == "model.exported":
            found["exports"][f"export/{len(found['exports']) + 1}/{said['filename']}"] = said["blob"]
        elif event.name == "dataset.prepared":
            found["manifest"] = {"dataset": said["root"]}
            origins = (said.get("origins") or {}).get("blobs", {})
            found["dataset"] = {f"rows/{split}": digest for split, digest in origins.items()}
        elif event.name == "checkpoint.written":
            written.append(((said["segment"], said["step"]), said["blob"]))
        elif event.name in ("checkpoint.pruned", "checkpoint.corrupt"):
            written = [one for one in written if one[0] != (said["segment"], said["step"])]
    found["checkpoints"] = (
        inherited | begun | {f"checkpoint/{segment}/{step}": blob for (segment, step), blob in written}
    )
    return found


def check_members(members: dict[str, memoryview], sections: list[str], events: list[Event], seal: Event) -> list[str]:
    """That the bundle holds what the log names and nothing else, and every byte is what its digest says."""
    named, sealed = blobs_of(events), seal.data["members"]
    told = {name: digest for section in named.values() for name, digest in section.items()}
    furniture = {name: sealed.get(name, "") for name in ("schemas.json", "verify_bundle.py")}
    for name in sorted(told.keys() | furniture.keys() | sealed.keys()):
        need((told | furniture).get(name) == sealed.get(name), f"log: the seal says another digest of {name!r}")
    chosen = {digest for part in SECTIONS[1:] if part in sections for digest in named[part].values()}
    more, files = {f"blobs/{digest}": digest for digest in chosen}, {}
    for part in sections:
        need(named["manifest" if part == "dataset" else part], f"bundle: nothing in the log belongs to {part!r}")
    need("manifest" in sections or "dataset" not in sections, "bundle: rows without their manifest")
    if "manifest" in sections:
        need(MANIFEST in members, f"{MANIFEST} is missing")
        files = check_manifest(bytes(members[MANIFEST]), named["manifest"]["dataset"])
    expected = ["bundle", "log", "keyring", *furniture]
    rows = [f"dataset/{file}" for file in files] if "dataset" in sections else []
    expected += sorted([*more, *([MANIFEST] if "manifest" in sections else []), *rows], key=str.encode)
    need(sorted(members) == sorted(expected), f"members missing or too many: {sorted(members.keys() ^ set(expected))}")
    need(list(members) == expected, "the members stand in another order than they are written in")
    for name, digest in (more | furniture).items():
        need(blake3(members[name]) == digest, f"{name}: its bytes are not what its digest says")
    for row in rows:
        content, pieces = members[row], files[row.removeprefix("dataset/")]
        found = [blake3(content[at : at + PIECE]) for at in range(0, len(content), PIECE)]
        need(found == pieces, f"{row}: its bytes are not what was prepared")
    absent = [part for part in SECTIONS if part not in sections]
    return [told for told in (left_out(part, named) for part in absent) if told]


def left_out(part: str, named: dict[str, dict[str, str]]) -> str:
    """What of a section that is not in the bundle was not compared; empty when nothing in the log belongs to it."""
    if part == "manifest" and named[part]:
        return "manifest: not in the bundle; the log has the root of the rows"
    if part == "dataset" and named["manifest"]:
        return "dataset: its rows are not in the bundle" + (", nor what they are called" if named[part] else "")
    count = len(named[part])
    return f"{part}: {number(count, 'is', 'are')} not in the bundle; the log has the digests" if count else ""


def check_manifest(raw: bytes, root: str) -> dict[str, list[str]]:
    """The pieces of every file that the manifest names, if its root is the one recorded."""
    try:
        said = json.loads(raw)
        canonical = {
            key: json.dumps(one, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            for key, one in (("all", said), ("body", {k: v for k, v in said.items() if k != "root"}))
        }
        stored = [one for columns in said["splits"].values() for one in columns.values()]
        files = {one["file"]: one["pieces"] for one in stored}
        odd = [one for one in files if one in ("", ".", "..", "manifest.json") or "/" in one or "\0" in one]
        odd += [one for one in files if len(one.encode()) > 255]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Broken(f"{MANIFEST}: it cannot be read") from None
    need(not odd, f"{MANIFEST}: {odd[:1]} is no name of a file of a dataset")
    need(len(files) == len(stored), f"{MANIFEST}: two columns lie in one file")
    need(canonical["all"] == raw, f"{MANIFEST}: it is not in its canonical form")
    need(said.get("root") == root and blake3(canonical["body"]) == root, f"{MANIFEST}: it has another root")
    return files


# ---------------------------------------------------------------- 7. what the log says against itself

COMPUTED = ("window.recorded", "control.evaluated", "checkpoint.written")
SIGNERS = ("operator", "desk", "root")
SPENT = "limits.seconds"
BESIDE_PARENT = "whether the fork follows from its parent's log: `swarm audit` judges that where the parent is at hand"


class Told(NamedTuple):
    """An event that binds somebody: its place, its name, what it says."""

    position: int
    name: str
    data: dict[str, Any]


def left_open(events: list[Event], ring_events: list[Event]) -> list[str]:
    """What this program does not look at though it is there, or was."""
    gone = sum(one.name in ("checkpoint.pruned", "checkpoint.corrupt") and one.data is not None for one in events)
    asked = sum(map(is_decision, [*events, *ring_events]))
    found = []
    if gone:
        told = number(gone, "checkpoint was", "checkpoints were")
        found.append(f"{told} let go, as the log says, which has the digests")
    if asked:
        told = number(asked, "decision of a person was", "decisions of people were")
        found.append(f"{told} not compared with what was signed: `swarm audit` does that")
    return found


def is_decision(one: Event) -> bool:
    """Whether it says that a person decided something, or holds what was signed for it."""
    if not isinstance(one.data, dict) or one.lane not in SIGNERS or one.name == "session.requested":
        return False
    return bool(one.data.get("signed")) or str(one.data.get("asked_by", "")).startswith("person_")


def number(count: int, one: str, many: str) -> str:
    """So many, in words that fit."""
    return f"{count} {one if count == 1 else many}"


def check_words(events: list[Event]) -> list[str]:
    """That no event contradicts another; what of this is left to `swarm audit`."""
    told = [Told(at, one.name, one.data) for at, one in enumerate(events, 1) if one.data is not None]
    fork = events[0].data.get("fork") or {}
    asked = [one for one in events if one.data is not None and one.name == "intervention.proposed"]
    proposals = {json.loads(one.record.body)["id"]: one.data for one in asked}
    found = [*dissents(told), *claims_against(told), *beginnings_against(told, fork)]
    limits = (events[0].data.get("request") or {}).get("limits")
    limits = limits if isinstance(limits, dict) else {}
    found += [*decisions_against(told, proposals, limits, fork.get("segment", 1)), *paths_against(told, fork)]
    need(not found, "log: event {}: {}".format(*min(found)) if found else "")
    return [BESIDE_PARENT] if fork else []


def dissents(told: list[Told]) -> Iterator[tuple[int, str]]:
    """A validator that computed another control metric, and what was computed before anybody claimed the session."""
    for one in told:
        if one.name == "checkpoint.validated" and one.data["control"] == "differs":
            yield one.position, f"the validator computed another control metric at step {one.data['step']}"
    first = next((one for one in told if one.name in (*COMPUTED, "training.claimed")), None)
    if first and first.name in COMPUTED:
        yield first.position, "it was recorded before anybody claimed the session"


def claims_against(told: list[Told]) -> Iterator[tuple[int, str]]:
    """Claims of other rows than were prepared, or that say otherwise than the first one how the session is trained."""
    prepared = [one.data["root"] for one in told if one.name == "dataset.prepared"]
    claims = [one for one in told if one.name == "training.claimed"]
    for one in claims:
        if prepared and one.data["dataset"] != prepared[-1]:
            yield one.position, f"it claims dataset {one.data['dataset']}, and {prepared[-1]} was prepared"
        for name in ("initial", "resolved"):
            if one.data.get(name) != claims[0].data.get(name):
                yield one.position, f"its {name!r} is not that of the first claim"


def beginnings_against(told: list[Told], fork: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Checkpoints of the state in which a fork begins that are not what its genesis names."""
    for one in told if fork else ():
        if one.name == "checkpoint.written" and one.data["step"] == fork["step"]:
            for name in ("weights_digest", "state_root", "blob"):
                if fork[name] is not None and one.data[name] != fork[name]:
                    yield one.position, f"it begins with another {name} than its genesis names"


def decisions_against(
    told: list[Told], asked: dict[str, Any], limits: dict[str, Any], segment: int
) -> Iterator[tuple[int, str]]:
    """Decisions that took effect and were not proposed so, nor follow from the limits of the request."""
    for one in told:
        if one.name == "intervention.applied":
            segment += 1
            if against := decision_against(one.data, asked.get(one.data["proposal"]), limits):
                yield one.position, against
            elif one.data["segment"] != segment:
                yield one.position, f"it begins segment {one.data['segment']}, and the next one is {segment}"


def decision_against(said: dict[str, Any], proposed: dict[str, Any] | None, limits: dict[str, Any]) -> str:
    """Why a decision was not to be taken; empty when nothing speaks against it."""
    if said["by"] == SPENT:
        seconds, allowed = said.get("seconds"), limits.get("seconds")
        proposed = {"changes": {"stop": True}, "rewind_to": None}
        if seconds is None or not isinstance(allowed, int | float) or not float.fromhex(seconds) >= allowed:
            return f"{seconds} seconds end it, and its request allows {allowed}"
    if proposed is None:
        return f"nobody proposed it: {said['proposal']!r} is no proposal"
    if proposed["changes"] != said["changes"]:
        return "it applies other changes than were proposed"
    if proposed["rewind_to"] not in (None, said["step"]):
        return f"it goes back to step {said['step']}, not {proposed['rewind_to']}"
    return ""


def paths_against(told: list[Told], fork: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Steps that no path of the session had, and completions whose values are not its last evaluation's."""
    begun, seen = [(fork.get("segment", 1), fork.get("step", 0))], list[Told]()
    for one in told:
        if one.name == "intervention.applied":
            segment = (one.data["segment"], one.data["step"])
            begun += [segment] if segment[0] != begun[-1][0] else []
            seen = [said for said in seen if on_path(said, begun)]
        elif one.name in COMPUTED:
            seen += [one] if one.name == "control.evaluated" else []
            given = fork and one.name == "checkpoint.written" and one.data["step"] == fork["step"]
            if len(begun) > 1 and not given and not on_path(one, begun):
                yield one.position, f"steps up to {last_step(one)} of segment {one.data['segment']} lie on no path"
    last = bits_of(seen[-1].data["values"]) if seen else {}
    for one in told:
        if one.name == "training.completed" and bits_of(one.data["values"]) != last:
            yield one.position, "its values are not those of the last evaluation"


def on_path(one: Told, begun: list[tuple[int, int]]) -> bool:
    """Whether no later segment had begun before the step."""
    return all(last_step(one) <= step for segment, step in begun if segment > one.data["segment"])


def last_step(one: Told) -> int:
    """The step at which it was computed."""
    return int(one.data["last" if one.name == "window.recorded" else "step"])


def bits_of(values: dict[str, Any]) -> dict[str, str]:
    """Floats, which events spell in hexadecimal, each in its one spelling: what is no number equals itself."""
    read = {name: float.fromhex(one) if isinstance(one, str) else float(one) for name, one in values.items()}
    return {name: one.hex() for name, one in read.items()}


# ---------------------------------------------------------------- 8. anchors, and everything in order

NOTE = re.compile(r"(?:[^\n]+\n)+\n\u2014 [^\n]+\n")


def check_anchors(text: str, session: str, events: list[Event], keys: Iterable[Key]) -> int:
    """Notes that were kept elsewhere: those about this session must fit its tree."""
    notes = NOTE.findall(text)
    need("".join(notes) == text and notes, "anchor: the file holds something else than notes")
    roots = roots_of(event.record.leaf for event in events)
    ledger = [key for key in keys if key.role == "ledger"]
    about = [note for note in notes if note.startswith(f"stigmergy/{session}\n")]
    need(about, f"anchor: no note is about {session}")
    for note in about:
        lines = note.split("\n")
        need(signed_by(note, ledger), "anchor: a note is signed by no key that this ledger ever held")
        size = int(lines[1])
        need(size < len(roots), f"anchor: it covers {size} events, and there are {len(events)}")
        need(lines[2] == base64.b64encode(roots[size]).decode(), f"anchor: the root over {size} events is another")
        sealed = any(line.startswith("members ") for line in lines)
        need(not sealed or note == events[-1].data["note"], "anchor: the seal is not the one that was kept")
    return len(notes)


def verify(path: Path, root: str = "", anchors: str | None = None, *, contradictions: bool = True) -> dict[str, Any]:
    """What the bundle holds; `Broken` names the first thing that does not hold."""
    members = members_of(memoryview(path.read_bytes()))
    for name in ("bundle", "log", "keyring", "schemas.json", "verify_bundle.py"):
        need(name in members, f"the bundle has no member {name!r}")
    marker = re.fullmatch(
        r"stigmergy/bundle/1 ([a-z0-9-]+)((?: [a-z]+)*)\n", bytes(members["bundle"]).decode("latin-1")
    )
    sections = marker[2].split() if marker else []
    need(marker and sections == [one for one in SECTIONS if one in sections], "bundle: not a kind that is known here")
    session = marker[1] if marker else ""
    schemas = schemas_of(bytes(members["schemas.json"]))
    ring_session, ring_records = records_of("keyring", bytes(members["keyring"]))
    own, records = records_of("log", bytes(members["log"]))
    need(own == session, f"log: it is the log of {own}")
    need(
        blake3(members["schemas.json"]) == named_by_seal(records, "schemas.json"), "schemas.json: the seal names others"
    )
    ring = Keyring(ring_session, root)
    ring_events = Reader("keyring", ring_session, ring, schemas).read(ring_records)
    need(ring.root, "keyring: it is not open")
    reader = Reader("log", session, ring, schemas)
    events = reader.read(records)
    begins = events and events[0].name == "session.requested" and events[0].lane == "operator"
    need(
        begins and events[0].data["keyring"] in {one.record.digest for one in ring_events}, "log: event 1 is no genesis"
    )
    seal = check_ledger(session, events, ring_events, ring.keys.values())
    check_numbers(records, ring_records, seal.data["size"])
    unchecked = [*check_members(members, sections, events, seal), *left_open(events, ring_events)]
    if not root:
        unchecked.insert(0, f"root: unanchored; the keyring is that of root {fingerprint(ring.root)}")
    if reader.unknown:
        strange = number(reader.unknown, "event", "events")
        unchecked.append(f"{strange} of a type unknown here: only the place in the log is verified, not the data")
    unchecked += check_words(events) if contradictions else []
    given = check_anchors(anchors, session, events, ring.keys.values()) if anchors is not None else 0
    return {
        "session": session,
        "events": len(events),
        "lanes": len(reader.heads),
        "signatures": sum(bool(one.signature) for one in records),
        "sealed": seal.data["root"],
        "root": root or "unanchored",
        "anchors": given,
        "unchecked": [*unchecked, "the computation itself was not repeated"],
    }


def named_by_seal(records: list[Record], member: str) -> str:
    """What the last event says of a member; that it is the seal, and whose, is verified later."""
    try:
        return str(json.loads(records[-1].body)["data"]["members"][member])
    except (IndexError, ValueError, KeyError, TypeError, RecursionError):
        raise Broken("log: it ends without a seal") from None


def schemas_of(raw: bytes) -> dict[str, Any]:
    """The schemas by NAME/VERSION; their digest is compared once the seal is verified."""
    try:
        found = json.loads(raw)
        well = all(isinstance(one["said_by"], list) and isinstance(one["schema"], dict) for one in found.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        well = False
    need(well, "schemas.json: it cannot be read")
    return dict(found)


def check_numbers(records: list[Record], ring_records: list[Record], size: int) -> None:
    """What stands behind the seal's tree has no signed place in the stream: it is counted on from what has."""
    last = max(one.seq for one in (*records[:size], *ring_records))
    for n, one in enumerate(records[size:], 1):
        need(one.seq == last + n, f"log: record {one.seq} must be numbered {last + n}")


def findings(path: Path, root: str = "", anchors: str | None = None, *, contradictions: bool = True) -> dict[str, Any]:
    """The verdict, and why; without `contradictions` only on whether the bundle is whole."""
    try:
        found = verify(path, root, anchors, contradictions=contradictions)
        return {"verdict": "pass", **found, "divergence": None}
    except Broken as broken:
        told = str(broken)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - what was made to confuse this program is no bundle either
        told = f"the bundle cannot be read: {error!r}"
    return {"verdict": "fail", "divergence": told, "root": root or "unanchored", "unchecked": []}


STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""What a terminal obeys, ends a line with, or turns letters by. Strangers write names, and so parts of a verdict."""


def harmless(text: str) -> str:
    """The text on one line, with a replacement character for each that would steer a terminal."""
    return STEERING.sub("\ufffd", text)


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """The verdict for people."""
    for name in ("verdict", "session", "events", "lanes", "signatures", "sealed", "root", "anchors", "divergence"):
        if found.get(name):
            yield harmless(f"{name:<11} {found[name]}")
    for told in found["unchecked"]:
        yield harmless(f"{'unchecked':<11} {told}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Verify a Stigmergy bundle. Exit code 0: it holds; 3: it does not.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--root", default="", help="fingerprint of the root key to trust (64 hex digits)")
    parser.add_argument("--anchor", type=Path, help="a file of signed notes that was kept elsewhere")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    given = parser.parse_args()
    root = given.root.strip().lower()
    if root and not re.fullmatch("[0-9a-f]{64}", root):
        parser.error("--root is the 64 hex digits of a fingerprint")
    try:
        anchors = given.anchor.read_text(encoding="utf-8") if given.anchor else None
        found = findings(given.bundle, root, anchors)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    text = json.dumps(found) if given.json else "\n".join(lines_of(found))
    sys.stdout.buffer.write(f"{text}\n".encode(sys.stdout.encoding, "backslashreplace"))
    return 0 if found["verdict"] == "pass" else 3


if __name__ == "__main__":
    sys.exit(main())
