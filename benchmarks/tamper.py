"""How many changes go unnoticed: of bundles, and of the files in which a server stores the log.

    mutations       bundles and stores that were changed and judged
    missed          of these, how many passed; a bundle is missed when either of the two verifiers lets it pass
    false_alarms    unchanged bundles and stores that were accused
    unlocated       noticed, but the verdict did not say where
    wrong_exits     ended in anything but a verdict (exit code 0, 2 or 3)

Bundles are changed byte by byte, member by member, record by record, and as a forger would do it, with the framing,
the chains and the checksums made right again. A store is copied, one of its files changed, and a server started on
the copy: what it then serves must be what was stored, or must be noticed beside the files that outlive the broker.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import options, report
from benchmarks.served import against_files
from bus import nkeys, subjects
from bus.durables import Layout
from bus.jetstream import connect, connect_admin
from bus.port import Record, StoredRecord
from bus.rights import Users, seed_file
from bus.server import EmbeddedServer
from contracts.errors import SwarmError
from runtime import audit
from runtime.bundle import verify_bundle
from runtime.home.home import Home
from tests.runtime.recorded_home import RecordedHome
from tests.runtime.recorded_session import full_session
from tests.tampering import ALL, Tally, Tamperer, judge, target

HOST = "host"
"""The identity that may speak in every built-in lane."""

_READ_SECONDS = 8.0


@dataclass
class Stores:
    """What came of changed stores; `served_alike` are those that a reader could not tell from the original."""

    mutations: int = 0
    missed: list[str] = field(default_factory=list)
    false_alarms: int = 0
    noticed: Counter[str] = field(default_factory=Counter)


def bundles(count: int, folder: Path) -> tuple[Tally, int]:
    """Change bundles, in this process; the tally, and how many honest ones were accused."""
    tally, alarms = Tally(), 0
    kinds = [("all", ALL), ("some", ("checkpoints",)), ("few", ())]
    for n, (name, wanted) in enumerate(kinds):
        honest = target(folder / name, *wanted)
        share = count // len(kinds) + (n < count % len(kinds))
        for mutation in islice(Tamperer(honest, n, folder / "made.zip"), share):
            judge(mutation, folder / "changed.zip", tally)
        for data in (*honest.honest, *honest.others):
            (folder / "changed.zip").write_bytes(data)
            alarms += audit.check_bundle(folder / "changed.zip").verdict != "pass"
            alarms += verify_bundle.findings(folder / "changed.zip")["verdict"] != "pass"
    return tally, alarms


@asynccontextmanager
async def server(home: Path) -> AsyncIterator[EmbeddedServer]:
    """A server on the store of a home."""
    made = EmbeddedServer(home, Users.of(home / "keys" / "nats"))
    made.spawn()
    try:
        await made.ready()
        yield made
    finally:
        await made.stop()


async def stored(recorded: RecordedHome) -> None:
    """Bring everything that was said into a server's store, append by append, as it was said."""
    home = recorded.home.root
    async with server(home) as made:
        admin, host = (nkeys.read(seed_file(home / "keys" / "nats", who)) for who in ("admin", HOST))
        async with connect_admin(made.url, admin, layout=Layout()) as bus:
            await bus.provision()
        async with connect(made.url, HOST, host) as bus:
            for append in _appends(recorded.stream):
                where = subjects.parse(append[0].subject)
                lane = subjects.lane(where.session, where.lane)
                newest = await bus.head(lane)
                records = [Record(one.subject, one.body, one.headers) for one in append]
                assert await bus.append(records, lane=lane, after=newest.seq if newest else 0) == append[-1].seq


def _appends(stream: Sequence[StoredRecord]) -> list[list[StoredRecord]]:
    ends = [0]
    for one in stream:
        ends.append(ends[-1] + bool(one.headers))
    return [
        [one for _, one in group] for _, group in groupby(zip(ends, stream, strict=False), key=lambda pair: pair[0])
    ]


async def read(home: Path) -> list[StoredRecord]:
    """The whole log as a reader is served it."""
    async with server(home) as made:
        host = nkeys.read(seed_file(home / "keys" / "nats", HOST))
        async with asyncio.timeout(_READ_SECONDS), connect(made.url, HOST, host) as bus:  # noqa: SIM117 - one purpose each
            async with bus.read(subjects.EVERYTHING) as messages:
                return [one async for one in messages]


def change(store: Path, rng: random.Random) -> str:
    """Change one file of the store, messages more often than what surrounds them."""
    files = [path for path in store.rglob("*") if path.is_file() and path.stat().st_size and "TM_" not in str(path)]
    blocks = [path for path in files if path.suffix == ".blk" and "EV_" in str(path)]
    path = rng.choice(blocks if rng.random() < 0.7 else files)
    data = bytearray(path.read_bytes())
    at, size = rng.randrange(len(data)), rng.choice([1, 8, 200, 3000])
    kind = rng.choice(["bit flip", "truncation", "deletion", "duplication", "reordering", "insertion", "substitution"])
    match kind:
        case "bit flip":
            data[at] ^= 1 << rng.randrange(8)
        case "truncation":
            del data[at:]
        case "deletion":
            del data[at : at + size]
        case "duplication":
            data[at:at] = data[at : at + size]
        case "reordering":
            piece = data[at : at + size]
            data[at : at + size] = piece[len(piece) // 2 :] + piece[: len(piece) // 2]
        case "insertion":
            data[at:at] = rng.randbytes(size)
        case "substitution":
            data[at : at + size] = rng.randbytes(min(size, len(data) - at))
    path.write_bytes(data)
    return f"{kind} at {at} of {path.relative_to(store)}"


async def stores(count: int, folder: Path) -> Stores:
    """Change stores, and look at what is served from each."""
    recorded = RecordedHome(folder / "home")
    full_session(recorded, guest=False), full_session(recorded, guest=False)
    await stored(recorded)
    found, original, rng = Stores(), await read(recorded.home.root), random.Random(5)
    found.false_alarms = len(list(against_files(recorded.home, original, root=recorded.fingerprint)))
    for _ in range(count):
        copy = folder / "copy"
        shutil.copytree(recorded.home.root, copy)
        what = change(copy / "nats" / "store", rng)
        try:
            served = await read(copy)
            told = [one.what for one in against_files(Home(copy), served, root=recorded.fingerprint)][:1]
        except (SwarmError, TimeoutError) as error:
            served, told = [], [type(error).__name__]
        found.mutations += 1
        if served == original:
            found.noticed["served alike"] += 1
            found.false_alarms += len(told)
        elif told:
            found.noticed[told[0]] += 1
        else:
            found.missed.append(what)
        shutil.rmtree(copy)
    return found


def main() -> None:
    """Measure and report."""
    asked = options(__doc__ or "")
    with tempfile.TemporaryDirectory() as scratch:
        tally, alarms = bundles(450 if asked.quick else 9500, Path(scratch))
        served = asyncio.run(stores(20 if asked.quick else 500, Path(scratch)))
    for line in (*tally.missed, *tally.broke, *tally.unlocated, *served.missed)[:20]:
        print(line[:400])
    figures = {
        "mutations": tally.mutations + served.mutations,
        "missed": len(tally.missed) + len(served.missed),
        "false_alarms": alarms + served.false_alarms,
        "unlocated": len(tally.unlocated),
        "wrong_exits": len(tally.broke),
    }
    report(asked, figures, {"stores": ", ".join(f"{name} {n}" for name, n in served.noticed.most_common())})


if __name__ == "__main__":
    main()
