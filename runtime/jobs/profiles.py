"""The sealed profiles that jobs run in; equal profiles share one zygote, so there are few of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from contracts.errors import Refused
from runtime.engine import environment


@dataclass(frozen=True, slots=True)
class Seal:
    """What a job that computes bits sets in its process before anything else, and reads back."""

    threads: int
    profile: str = "exact"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a zygote is sealed with: jobs of equal profiles come from the same one."""

    threads: int = 1
    torch: bool = True
    device: str = "cpu"
    modules: tuple[str, ...] = ()

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules that its jobs find imported."""
        return (("torch", "numpy") if self.torch else ()) + self.modules


_PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "USER", "LD_LIBRARY_PATH", "SWARM_FAILPOINT"),
    # A job on the CPU that asks whether there is a GPU must see as many as a job that trains on one.
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME"),
)


def sealed_environment(profile: Profile) -> dict[str, str]:
    """The whole environment of a zygote: what bits depend on is fixed, and little else is let in."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # A debugger there would have no terminal; `--here` runs user code where it has one.
    ours = {"PYTHONUTF8": "1", "PYTHONBREAKPOINT": "0"}
    return environment.sealed(passed_on, profile="exact", threads=profile.threads) | ours


MOST_THREADS = 1024
"""With more, no process is started because a log says so: a claim may say any number."""

_THREADS_PER_CORE, _FEWEST_THREADS = 4, 16
"""Threads that are of use on a core, and as many as any machine may be asked for, to compute what a larger one did."""


def most_threads(cores: int) -> int:
    """With how many threads, at most, a training begins on a machine of so many cores."""
    return min(MOST_THREADS, max(_FEWEST_THREADS, _THREADS_PER_CORE * cores))


def claimed_threads(said: object) -> int:
    """With how many threads to compute what a claim says was computed with so many; 1 where that cannot be."""
    return said if isinstance(said, int) and 1 <= said <= MOST_THREADS else 1


ENGINE = ("runtime.engine.loop", "runtime.engine.evaluate", "runtime.engine.fingerprint", "runtime.engine.checkpoint")
AUDIT = ("runtime.audit.recomputation", "runtime.replay.stepwise")
"""What every fork of an audit would import for itself, and with it most of what training does."""


def torch_profile(threads: int = 1, device: str = "cpu") -> Profile:
    """What trains, evaluates and audits: torch and the engine, imported, untouched. `Refused` for too many threads."""
    if claimed_threads(threads) != threads:
        message = f"no process is started with {threads!r:.40} threads, but with 1 to {MOST_THREADS}."
        raise Refused(message, cure="Leave the session to the machine that claimed it.")
    return Profile(threads=threads, torch=True, device=device, modules=(*ENGINE, *AUDIT))
