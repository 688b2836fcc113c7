"""Seals a computing process: sets what torch decides at run time, and reads that and the environment back. It fails
closed: a setting that is not in force ends the job. User code may change settings: jobs that run some look again."""

import os
import sys

import torch

from contracts.errors import Failed
from runtime.engine.environment import settings, strays

_EARLY = "PYTHON"
_POOLS = frozenset({"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_DYNAMIC", "MKL_DYNAMIC"})
"""Variables that are read once, at the start; how many threads there are now torch itself says."""


def apply(*, profile: str, threads: int) -> None:
    """Set what torch decides at run time and read everything back; raises `Failed` naming what is not in force."""
    exact = profile == "exact"
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(exact)
    else:
        # The public function imports the whole compiler to set one flag of it, 0.7 s a job; this is its own last line.
        torch._C._set_deterministic_algorithms(exact, warn_only=False)  # noqa: SLF001
        # What the compiler reads should somebody's code import it later.
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1" if exact else "0"
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = exact
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = not exact
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = not exact
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = not exact
    torch.set_flush_denormal(False)
    verify(profile=profile, threads=threads)


def verify(*, profile: str, threads: int) -> None:
    """Raises `Failed` with the first setting, of environment or torch, that is not in force."""
    _verify(profile, threads, strays(settings(profile, threads)))


def recheck(*, profile: str, threads: int) -> None:
    """As `verify`, after code that is not ours has run here.

    Of the environment only what is read late is looked at: what Python and the thread pools read when they started may
    have been set by a library since, and changes nothing.
    """
    wrong = [name for name in strays(settings(profile, threads)) if not name.startswith(_EARLY) and name not in _POOLS]
    _verify(profile, threads, wrong)


def _verify(profile: str, threads: int, wrong: list[str]) -> None:
    wanted = settings(profile, threads)
    if wrong:
        name = wrong[0]
        found = os.environ.get(name)
        cure = f"Start the process through `runtime.engine.environment`; it sets {name}={wanted.get(name, '')!r}."
        raise Failed(f"the environment is not sealed: {name} is {found!r}", cure=cure)
    for name, (found_now, wanted_now) in _readings(profile, threads).items():
        if found_now != wanted_now:
            cure = "Do not change torch's settings in a workload."
            raise Failed(f"torch is not sealed: {name} is {found_now!r}, not {wanted_now!r}", cure=cure)


def _readings(profile: str, threads: int) -> dict[str, tuple[object, object]]:
    exact = profile == "exact"
    return {
        "threads": (torch.get_num_threads(), threads),
        "interop threads": (torch.get_num_interop_threads(), 1),
        "deterministic algorithms": (torch.are_deterministic_algorithms_enabled(), exact),
        "warn only": (torch.is_deterministic_algorithms_warn_only_enabled(), False),
        "float32 matmul": (torch.get_float32_matmul_precision(), "highest" if exact else "high"),
        "cudnn.deterministic": (torch.backends.cudnn.deterministic, exact),
        "cudnn.benchmark": (torch.backends.cudnn.benchmark, False),
        "cudnn.allow_tf32": (torch.backends.cudnn.allow_tf32, not exact),
        "matmul.allow_tf32": (torch.backends.cuda.matmul.allow_tf32, not exact),
        "default dtype": (torch.get_default_dtype(), torch.float32),
        "matmul.allow_bf16_reduced_precision_reduction": (_reduced("bf16"), not exact),
        "matmul.allow_fp16_reduced_precision_reduction": (_reduced("fp16"), not exact),
    }


def _reduced(kind: str) -> bool:
    return bool(getattr(torch.backends.cuda.matmul, f"allow_{kind}_reduced_precision_reduction"))
