"""The environment that a computing process must be started with, because it cannot be mended later. Without torch."""

import os
import sys
from collections.abc import Mapping

UNSET = (
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "DNNL_DEFAULT_FPMATH_MODE", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"),
    *("MKL_ENABLE_INSTRUCTIONS", "NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA"),
    *("PYTHONSTARTUP", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Variables that choose other kernels or other code; a sealed process does not have them."""


def settings(profile: str, threads: int) -> dict[str, str]:
    """The variables that a process of this profile must start with."""
    count = str(threads)
    common = {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        # numpy's OpenBLAS starts its threads while it is imported, and a process that is forked from may have only one.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
        "PYTHONHASHSEED": "0",
        "PYTHONSAFEPATH": "1",
    }
    return common | ({"MKL_CBWR": "AUTO", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if profile == "exact" else {})


WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for each other sleep. By default they spin, and on a machine that has other work to do a step on
two threads takes ten times as long. It changes no bit, so that no process is refused for it."""


def sealed(base: Mapping[str, str], *, profile: str, threads: int) -> dict[str, str]:
    """A whole environment to start a sealed process with: `base` without what is unset, and the settings."""
    return WAITING | {name: value for name, value in base.items() if name not in UNSET} | settings(profile, threads)


def is_sealed(*, profile: str, threads: int) -> bool:
    """Whether this process was started with the settings of the profile."""
    return not strays(settings(profile, threads))


def strays(wanted: Mapping[str, str]) -> list[str]:
    """The variables of this process that are not as wanted, or that it should not have."""
    wrong = [name for name, value in wanted.items() if os.environ.get(name) != value]
    wrong += [name for name in UNSET if name in os.environ]
    return wrong + ([] if not sys.flags.hash_randomization else ["PYTHONHASHSEED"])
