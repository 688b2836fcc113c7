"""Microseconds per step of the real training job at the two sizes of `benchmarks/overhead.py`, as a line of JSON.

Unlike the other benchmarks it takes its modules from where PYTHONPATH says, so that `benchmarks/against.py` may ask
the same of another checkout.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.overhead import BATCH, WIDTHS, request
from benchmarks.trained import Bench
from runtime.jobs.children import Children

ROWS = {"kind": "numbers", "count": 6400, "val": 1000}
STEPS = {"26k": 2000, "1m": 200}


async def main() -> None:
    """Each size once to warm what there is to warm, then three times, of which the median counts."""
    children = Children()
    with tempfile.TemporaryDirectory(prefix="step") as folder:
        bench = Bench(children, Path(folder))
        figures = {}
        try:
            for size, steps in STEPS.items():
                plan = await bench.plan(request(WIDTHS[size], steps * BATCH // ROWS["count"]), ROWS)
                taken = [(await bench.train(plan, ROWS, f"{size}-{turn}")).us for turn in range(4)]
                figures[f"step_{size}"] = statistics.median(taken[1:])
        finally:
            await children.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
