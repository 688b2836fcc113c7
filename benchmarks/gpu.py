"""Whether sessions on a CUDA device keep the promise, and what it costs there.

    fingerprint    taken twice in fresh processes, per precision: the same, and how long it takes
    replay NAME    200 steps twice, and once more killed by SIGKILL and resumed: the same windows, evaluations and root
    swarm          a real session whose training child is killed, judged against an undisturbed one, audited in full
    strictness     a bare loop with strict deterministic algorithms over the same without, and over that with TF32
    roots          a BLAKE3 root over 33 MB of weights every 50 steps, in line and on a stream of its own
    stall          what a checkpoint of 100 MB costs the training thread
    utilisation    the real training job over a bare loop, and how busy the device was

Each part is tried by itself: one that fails is told with its reason, and the others go on. `--report FILE` writes the
page; without a device the page says that nothing was measured. `--device cpu` tries everything that a CPU can.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents.trainer.jobs import ProfileQuery, measure_profile
from benchmarks.on_device import bits, speed
from benchmarks.report import commit, machine
from benchmarks.trained import Bench
from runtime.jobs.children import Children
from runtime.jobs.job import Seal

Part = Callable[[], Awaitable[dict[str, float]]]
SPARED = 0.4
"""The share of the time that is left for the parts about time, however long those about bits take."""

COMMAND = "python benchmarks/gpu.py --json FILE --report docs/gpu.md"


@dataclass
class Findings:
    """What was found so far: the machine, figures, and parts that failed with their reasons."""

    device: str
    machine: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def before(cls, device: str, path: Path | None) -> Findings:
        """What an earlier run on such a device left in a file: parts that are tried again replace what is there."""
        if path is None or not path.exists():
            return cls(device)
        told = json.loads(path.read_text())
        return cls(device, told["machine"], told["figures"], told["failed"], told["seconds"])

    async def tried(self, name: str, part: Part, within: float) -> None:
        """Do one part; whatever goes wrong in it is written down and stays there."""
        begun = time.monotonic()
        self.failed.pop(name, None)
        try:
            async with asyncio.timeout(max(0.0, within)):
                self.figures |= await part()
        except TimeoutError:
            self.failed[name] = f"it had not ended {max(0.0, within):.0f} s after it could begin"
        except Exception as error:  # noqa: BLE001 - one part that fails must not lose the others
            self.failed[name] = f"{type(error).__name__}: {error}"[:600]
        self.seconds[name] = round(time.monotonic() - begun, 1)
        print(f"{name:<28} {self.seconds[name]:6.1f} s  {self.failed.get(name, 'ok')}", flush=True)

    def keep(self, path: Path | None, report: Path | None) -> None:
        """Write down what there is; done after every part, so that a run that is cut short loses little."""
        if path:
            told = {"figures": self.figures, "failed": self.failed, "seconds": self.seconds}
            path.write_text(json.dumps(told | {"machine": self.machine, "commit": commit()}, indent=2))
        if report:
            report.write_text(page(self))


async def measured(asked: argparse.Namespace, found: Findings, folder: Path) -> None:
    """All parts: first those about bits, side by side, then those about time, one after another."""
    children, ends = Children(), time.monotonic() + asked.within
    bench = Bench(children, folder, asked.device)

    async def tried(name: str, part: Part, spare: float = 0.0) -> None:
        if name != "machine" and not any(name.startswith(one) for one in asked.only or [""]):
            return
        await found.tried(name, part, ends - spare - time.monotonic())
        found.keep(asked.json, asked.report)

    async def about() -> dict[str, float]:
        who = await bench.ask(measure_profile, ProfileQuery(Seal(1), asked.device, "fp32"))
        found.machine = machine() | dict(who.environment)
        return {}

    try:
        await tried("machine", about)
        cases = bits.cases(asked.device, quick=asked.quick).items()
        replays = [(f"replay {name}", partial(bits.replayed, bench, name, *case)) for name, case in cases]
        parts = [("fingerprint", partial(bits.fingerprints, bench)), *replays, ("swarm", partial(bits.swarm, bench))]
        await asyncio.gather(*(tried(name, part, SPARED * asked.within) for name, part in parts))
        for work in (speed.strictness, speed.roots, speed.stall, speed.utilisation):
            await tried(work.__name__, partial(work, bench, quick=asked.quick))
    finally:
        await children.close()


def page(found: Findings | None) -> str:
    """The findings as a page; None where there is no device."""
    head = ["# On a GPU", "", f"Written by `{COMMAND}`, which says what each part does.", ""]
    if found is None:
        return "\n".join([*head, "No CUDA device was at hand, so nothing was measured."]) + "\n"
    about = [f"| {name} | {text} |" for name, text in found.machine.items()]
    figures = [f"| {name} | {value:,.4g} |" for name, value in found.figures.items()]
    failed = [f"- {name}: {reason}" for name, reason in found.failed.items()]
    done = ", ".join(f"{name} {took:g} s" for name, took in found.seconds.items() if name not in found.failed)
    return "\n".join(
        [
            *head,
            f"Device `{found.device}`, commit {commit()[:12] or 'unknown'}. Parts that passed: {done or 'none'}.",
            "",
            "| machine | |",
            "|---|---|",
            *about,
            "",
            "| figure | |",
            "|---|---|",
            *figures,
            "",
            *(["Failed:", "", *failed] if failed else ["No part failed."]),
            "",
        ]
    )


def has_device() -> bool:
    """Whether there is a CUDA device; asked in a process of its own, as this one forks nobody but must stay light."""
    import subprocess

    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def main() -> int:
    """Measure what there is, say what failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: try whether all of it runs")
    parser.add_argument("--within", type=float, default=230, help="seconds after which nothing more is begun (230)")
    parser.add_argument(
        "--only", action="append", metavar="PART", help="only parts whose names begin so, added to --json"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--report", type=Path, help="write the page to this file")
    asked = parser.parse_args()
    if asked.device == "cuda" and not has_device():
        print("There is no CUDA device here; nothing was measured.")
        if asked.report:
            asked.report.write_text(page(None))
        return 6
    found = Findings.before(asked.device, asked.json if asked.only else None)
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as folder:
        asyncio.run(measured(asked, found, Path(folder)))
    width = max(map(len, found.figures), default=0)
    for name, value in found.figures.items():
        print(f"{name:<{width}}  {value:>14,.4f}")
    for name, reason in found.failed.items():
        print(f"FAILED {name}: {reason}")
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
