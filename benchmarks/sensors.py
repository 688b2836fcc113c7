"""What the sensors in windows cost: in a step, in the bytes of a window, in a fold.

    step_over_none             processor time of a step at 26k parameters with sensors over that without: two runs of
                               one training in one process on one thread, a window of each in turn
    step_over_none_accumulate  the same with four micro-steps in each step, whose gradients are compared as well
    step_over_none_1m          the same at 1.1M parameters
    bytes_over_none_N          bytes of a window as it is stored over those without sensors, of a trained network of N
                               layers with tanh between them, so that they have something to say of every layer
    bytes_over_none_N_accumulate   the same with noise scales as well
    fold_more_us_N             microseconds of processor time by which a window with all of that takes longer to be read
                               and folded than one from before there were sensors, which takes `fold_us_N`

Each is the median of pairs that took turns.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overhead import BATCH, WIDTHS, request
from benchmarks.report import options, report
from benchmarks.trained import Bench, SensorCosts, SensorTurns, time_sensors
from contracts import envelope
from contracts.envelope import Fact
from contracts.ids import ZERO, new_uuid, session_id, uuid8
from contracts.operator import SessionRequested
from contracts.session import SessionState, advance
from runtime.jobs.children import Children

ROWS = {"kind": "numbers", "count": 6400, "val": 1000}
TIME = "2026-01-02T03:04:05.000000Z"


def asked_for(hidden: list[int], windows: int, **training: Any) -> dict[str, Any]:
    """A training of so many windows of 50 steps, and a few more."""
    taken = BATCH * int(training.get("accumulate", 1))
    epochs = -(-(windows + 4) * 50 * taken // ROWS["count"])
    made = request(hidden, epochs)
    return made | {"training": made["training"] | training, "checkpoints": {"every_steps": 50_000}}


def deep(layers: int) -> list[int]:
    """Widths of a network of so many layers, the answer among them."""
    return [32] * (layers - 1)


async def main() -> None:
    """Measure and report."""
    asked = options(__doc__ or "")
    pairs = 120 if asked.quick else 800
    few = 6 if asked.quick else 40
    figures: dict[str, float] = {}
    children = Children()
    with tempfile.TemporaryDirectory(prefix="sensors") as folder:
        bench = Bench(children, Path(folder))

        async def costs(asks: dict[str, Any], count: int) -> SensorCosts:
            plan = await bench.plan(asks, ROWS)
            return await bench.ask(time_sensors, SensorTurns(plan, bench.rows(ROWS), count))

        try:
            steps = {
                "": (asked_for(WIDTHS["26k"], pairs), pairs),
                "_accumulate": (asked_for(WIDTHS["26k"], pairs // 6, accumulate=4), pairs // 6),
                "_1m": (asked_for(WIDTHS["1m"], few), few),
            }
            for name, (asks, count) in steps.items():
                found = await costs(asks, count)
                ratios = [one / other for one, other in zip(found.sensed, found.plain, strict=True)]
                figures[f"step_over_none{name}"] = statistics.median(ratios)
                if not name:
                    figures["step_us"] = 1e6 * statistics.median(found.plain) / 50
            for layers in (3, 30):
                for name, training in {"": {}, "_accumulate": {"accumulate": 4}}.items():
                    asks = asked_for(deep(layers), 2, **training)
                    asks["model"] |= {"activation": "tanh"}
                    window = (await costs(asks, 2)).window
                    before = window.model_copy(update={"sensors": None})
                    figures[f"bytes_{layers}{name}"] = len(as_before(body(before)))
                    figures[f"bytes_over_none_{layers}{name}"] = len(body(window)) / len(as_before(body(before)))
                more, old = fold_us([body(window), as_before(body(before))], 200 if asked.quick else 2000)
                figures |= {f"fold_us_{layers}": old, f"fold_more_us_{layers}": more - old}
        finally:
            await children.close()
    report(asked, figures, {"threads": "1", "pairs": str(pairs)})


SESSION = session_id(new_uuid())


def body(event: Any, laneseq: int = 7) -> bytes:
    """An event as a trainer stores it."""
    return envelope.write(
        event, id=str(uuid8("one", laneseq)), session=SESSION, lane="trainer", laneseq=laneseq, prev=ZERO,
        source="stigmergy/trainer", time=TIME, cause=str(uuid8("cause")), correlation=str(uuid8("about")), epoch=1,
    )  # fmt: skip


def as_before(said: bytes) -> bytes:
    """A window as software without sensors stored it."""
    return said.replace(b"window.recorded/2", b"window.recorded/1").replace(b',"sensors":null', b"")


def fold_us(bodies: list[bytes], count: int) -> list[float]:
    """Microseconds in which each is read and folded, in turn."""
    genesis = SessionRequested(kind="training", request={}, keyring=ZERO, asked_by="owner", rules=2)
    written = envelope.write(
        genesis, id=str(uuid8("genesis")), session=SESSION, lane="operator", laneseq=1, prev=ZERO,
        source="stigmergy/desk", time=TIME,
    )  # fmt: skip
    begun = fold(SessionState(SESSION), written)
    taken = [mean_us(lambda said=said: fold(begun, said), count) for _ in range(9) for said in bodies]
    return [statistics.median(taken[at :: len(bodies)]) for at in range(len(bodies))]


def fold(state: SessionState, said: bytes) -> SessionState:
    """One event read from its bytes and folded."""
    return advance(state, Fact(state.events + 1, state.events + 1, *envelope.read(said), ZERO))


def mean_us(function: Callable[[], object], count: int) -> float:
    """Microseconds of one call, the mean of so many in a row."""
    begun = time.process_time()
    for _ in range(count):
        function()
    return 1e6 * (time.process_time() - begun) / count


if __name__ == "__main__":
    asyncio.run(main())
