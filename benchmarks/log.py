"""How fast facts are stored durably, and how fast they are read back as admitted, typed state.

    append_per_s       events composed, chained, signed and stored, in atomic batches of 200, every batch synced
    append_over_raw    the same, over a bare nats-py script that stores the same bytes in the same batches
    fold_per_s         events read from the server, admitted (chain, signatures), typed and folded
    fold_over_raw      the same, over a bare ordered nats-py consumer that only counts
    fold_1m_s          seconds in which an open session of `fold_1m_events` events (1M; with --quick 50k) is read from
                       its file, admitted and folded, in a process of its own; `fold_1m_cpu_s` of them it computed
    fold_1m_mb         the most that this process held, above one that does nothing

Each is the better of several turns, ours and the bare script's in alternation, on one server; a long session is read
once.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client
from nats.aio.msg import Msg

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.long_session import empty_mb, read_cold, written
from benchmarks.report import filesystem, options, report
from bus import nkeys, subjects
from bus.admission import Admission
from bus.chain import Draft, Head, compose, extended
from bus.jetstream import JetStreamBus, connect, connect_admin
from bus.keys import Signer, new_signer
from bus.port import Record
from bus.rights import Users, seed_file
from bus.server import EmbeddedServer, find_binary, version
from contracts.event import pack
from contracts.ids import new_uuid, session_id, uuid8
from contracts.keyring import KeyAdmitted, KeyringOpened, fingerprint, keyring_session
from contracts.session import SessionState, advance
from contracts.trainer import Layer, WindowRecorded, evidence
from runtime.jobs import garbage

BATCH = 200
TIME = "2026-01-02T03:04:05.000000Z"


def window(n: int) -> WindowRecorded:
    """A window as a small session says it: 10 losses, two layers."""
    layers = [Layer(name=f"layer{k}", gradient=0.1 * n, weight=1.5, update=1e-3) for k in range(2)]
    return WindowRecorded(
        segment=1,
        first=10 * n,
        last=10 * n + 10,
        losses=pack(struct.pack("<10f", *[1.0 / (1 + n)] * 10)),
        gradient_norm=0.5,
        learning_rate=1e-3,
        index_digest=f"{n:064x}",
        weights_digest=f"{n:064x}",
        finite=True,
        **evidence(layers),
    )


class Writer:
    """The writer of one session's trainer lane."""

    def __init__(self, signer: Signer) -> None:
        self.session = session_id(new_uuid())
        self.lane = subjects.lane(self.session, "trainer")
        self.signer = signer
        self.head = Head()

    def drafts(self, batches: int) -> list[list[Draft]]:
        """What will be said: typed events with their ids, in batches."""
        return [
            [Draft(window(n), str(uuid8(self.session, n))) for n in range(k * BATCH, (k + 1) * BATCH)]
            for k in range(batches)
        ]

    def records(self, drafts: list[Draft]) -> list[Record]:
        """One batch, composed, chained and signed."""
        return compose(
            drafts, session=self.session, lane="trainer", head=self.head, signer=self.signer, source="/b", time=TIME
        )

    def stored(self, records: list[Record], seq: int) -> None:
        """Go on behind an append."""
        self.head = extended(self.head, records, seq)


async def ours(bus: JetStreamBus, signer: Signer, batches: int) -> float:
    """Events per second, from typed events to the acknowledgement."""
    writer = Writer(signer)
    said = writer.drafts(batches)
    begun = time.perf_counter()
    for drafts in said:
        records = writer.records(drafts)
        writer.stored(records, await bus.append(records, lane=writer.lane, after=writer.head.stored))
    return batches * BATCH / (time.perf_counter() - begun)


async def bare(client: Client, signer: Signer, batches: int) -> float:
    """The same bytes by a script of nats-py calls; composing them is not counted."""
    writer = Writer(signer)
    prepared = []
    for drafts in writer.drafts(batches):
        records = writer.records(drafts)
        prepared.append(records)
        writer.stored(records, 0)
    expected = 0
    begun = time.perf_counter()
    for number, records in enumerate(prepared):
        for n, record in enumerate(records, 1):
            headers = {**record.headers, "Nats-Batch-Id": f"{writer.session}-{number}", "Nats-Batch-Sequence": str(n)}
            if n == 1:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = writer.lane
                await client.request(record.subject, record.body, timeout=10, headers=headers)
            elif n < len(records):
                await client.publish(record.subject, record.body, headers=headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                reply = await client.request(record.subject, record.body, timeout=10, headers=headers)
                expected = int(reply.data.partition(b'"seq":')[2].partition(b",")[0])
    return batches * BATCH / (time.perf_counter() - begun)


async def folded(bus: JetStreamBus, root: str, count: int) -> float:
    """Events per second, from the server to the folded state of every session."""
    admission = Admission(root=fingerprint(root))
    sessions: dict[str, SessionState] = {}
    facts = 0
    begun = time.perf_counter()
    async with bus.read(subjects.EVERYTHING) as messages:
        async for stored in messages:
            for fact in admission.admit(stored):
                facts += 1
                name = fact.envelope.subject
                sessions[name] = advance(sessions.get(name) or SessionState(name), fact)
    took = time.perf_counter() - begun
    assert facts == count, (facts, count, admission.voids[:3])
    return count / took


async def counted(client: Client, count: int) -> float:
    """Events per second that a bare ordered consumer hands to a function that only counts."""
    seen, finished = 0, asyncio.Event()

    async def take(message: Msg) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            finished.set()

    begun = time.perf_counter()
    subscription = await client.jetstream().subscribe(subjects.EVERYTHING, ordered_consumer=True, cb=take)
    await asyncio.wait_for(finished.wait(), 120)
    took = time.perf_counter() - begun
    await subscription.unsubscribe()
    return count / took


async def best(turns: int, one: Callable[[], Awaitable[float]], other: Callable[[], Awaitable[float]]) -> list[float]:
    """The better figure of each, taken in alternation so that both see the same machine."""
    pairs = [(await one(), await other()) for _ in range(turns)]
    return [max(column) for column in zip(*pairs, strict=True)]


def read_long(folder: Path, events: int) -> dict[str, float]:
    """What it takes to read one long session from its file."""
    root = folder / "long"
    read = read_cold(root, written(root, events, window))
    assert read["events"] == events, read
    return {
        "fold_1m_s": read["seconds"],
        "fold_1m_cpu_s": read["computed"],
        "fold_1m_mb": read["mb"] - empty_mb(),
        "fold_1m_events": events,
    }


@asynccontextmanager
async def server(home: Path) -> AsyncIterator[EmbeddedServer]:
    """An embedded server on an empty home."""
    embedded = EmbeddedServer(home, Users.of(home / "keys"))
    embedded.spawn()
    try:
        await embedded.ready()
        yield embedded
    finally:
        await embedded.stop()


@asynccontextmanager
async def raw(url: str, key: nkeys.UserKey) -> AsyncIterator[Client]:
    """nats-py as it comes, with the administrator's key."""
    client = Client()
    client._public_nkey = key.public  # noqa: SLF001 - there is no argument for it
    await client.connect(url, signature_cb=key.sign)
    try:
        yield client
    finally:
        await client.close()


async def open_keyring(bus: JetStreamBus, root: Signer, trainer: Signer) -> int:
    """Admit the trainer's key, so that readers can verify what it says; the number of events that takes."""
    session = keyring_session(root.public)
    events = [
        KeyringOpened(root=root.public, deployment="benchmark"),
        KeyAdmitted(role="trainer", public=trainer.public, may_admit=False),
    ]
    head, lane = Head(), subjects.lane(session, "root")
    for event in events:
        draft = Draft(event, str(new_uuid()))
        records = compose([draft], session=session, lane="root", head=head, signer=root, source="/b", time=TIME)
        head = extended(head, records, await bus.append(records, lane=lane, after=head.stored))
    return len(events)


async def main() -> None:
    """Measure and report."""
    asked = options(__doc__ or "")
    garbage.collect_seldom()  # as the host and the command do
    batches, turns = (25, 2) if asked.quick else (100, 4)
    with tempfile.TemporaryDirectory(dir=os.environ.get("SWARM_BENCH_DIR", ".")) as folder:
        home = Path(folder)
        async with server(home) as embedded:
            key = {name: nkeys.read(seed_file(home / "keys", name)) for name in ("admin", "trainer", "desk", "ledger")}
            root, trainer = new_signer("root"), new_signer("trainer")
            async with (
                connect_admin(embedded.url, key["admin"]) as admin,
                connect(embedded.url, "trainer", key["trainer"]) as bus,
                connect(embedded.url, "desk", key["desk"]) as desk,
                connect(embedded.url, "ledger", key["ledger"]) as reader,
                raw(embedded.url, key["admin"]) as client,
            ):
                await admin.provision()
                count = await open_keyring(desk, root, trainer)
                appends, raw_appends = await best(
                    turns, lambda: ours(bus, trainer, batches), lambda: bare(client, trainer, batches)
                )
                count += 2 * turns * batches * BATCH
                folds, raw_reads = await best(
                    turns, lambda: folded(reader, root.public, count), lambda: counted(client, count)
                )
        figures = {
            "append_per_s": appends,
            "append_raw_per_s": raw_appends,
            "append_over_raw": appends / raw_appends,
            "fold_per_s": folds,
            "read_raw_per_s": raw_reads,
            "fold_over_raw": folds / raw_reads,
            "events": count,
        }
        figures |= read_long(Path(folder), 50_000 if asked.quick else 1_000_000)
        found = ".".join(map(str, version(find_binary())))
        report(asked, figures, {"filesystem": filesystem(home), "nats-server": found, "batch": str(BATCH)})


if __name__ == "__main__":
    asyncio.run(main())
