"""Resolves a request against its dataset, and measures which bits this machine computes; trains nothing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from contracts.errors import InvalidRequest, Problem
from contracts.request import Request
from runtime.engine import seal, sizes
from runtime.engine.dataset import Dataset
from runtime.engine.facts import Facts
from runtime.engine.fingerprint import fingerprint, present
from runtime.engine.loop import ENGINE_BITS
from runtime.engine.resolve import resolve
from runtime.engine.sizes import Sizes
from runtime.home.workloads import enlist
from runtime.jobs import process, resources
from runtime.jobs.job import Job
from runtime.jobs.profiles import most_threads
from runtime.replay import initial_state


def main(job: Job) -> dict[str, Any]:
    """Every `auto` as a number: {"resolved": ...}."""
    enlist(job.args["workloads"])
    request = Request.model_validate(job.args["request"])
    _refuse_threads_beyond(process.cores(), request, job.args["inherited"])
    dataset = Dataset.open(Path(job.args["dataset"]), verify=True)
    cuda = job.args["device"] != "cpu" and torch.cuda.is_available()
    sized = _sized(request, dataset.facts)
    _refuse_without_room(sized, cuda=cuda)
    begun, given = initial_state.initial_tensors(job.args), job.args["inherited"]
    # A driver of a GPU takes memory in ways of its own, which are not to be judged here.
    with resources.bounded() if sized is None and not cuda else nullcontext():
        found = resolve(request, dataset.facts, cores=process.cores(), cuda=cuda, initial=begun, inherited=given)
    counted = sized or Sizes.counted(request, found.parameters)
    _refuse_without_room(counted, cuda=cuda)
    if (free := resources.free_bytes()) is not None:
        sizes.refuse_rows_beyond(free, found, dataset.facts)
    free = shutil.disk_usage(job.args["room"]).free
    sizes.refuse_checkpoints_beyond(free, counted, request, found)
    return {"resolved": found.as_json()}


def _refuse_threads_beyond(cores: int, request: Request, inherited: Mapping[str, Any] | None) -> None:
    """Each thread takes memory and its share of the machine, and a request names any number of them."""
    wanted, most = inherited["threads"] if inherited else request.training.threads, most_threads(cores)
    if wanted != "auto" and wanted > most:
        message = f"{wanted} threads are more than the {most} with which a training begins on {cores} cores"
        raise InvalidRequest([Problem("training.threads", message, f"Write at most {most}, or `auto`.")])


def _sized(request: Request, facts: Facts) -> Sizes | None:
    """What a built-in model will hold; None for user code, and for what does not fit together."""
    try:
        return Sizes.of(request, facts)
    except InvalidRequest:
        return None


def _refuse_without_room(sized: Sizes | None, *, cuda: bool) -> None:
    free = resources.free_bytes()
    if sized is not None and free is not None:
        sized.refuse_beyond(free, device="cuda" if cuda else "cpu")


def identify(job: Job) -> dict[str, Any]:
    """What makes the bits: fingerprint by operator family, engine bits, and the environment in words."""
    seal.apply(**job.args["seal"])
    found = fingerprint(job.args["device"], job.args["precision"])
    return {
        "fingerprint": found.digest,
        "families": dict(found.families),
        "engine_bits": ENGINE_BITS,
        "environment": _environment(job.args["device"]),
    }


def _environment(device: str) -> dict[str, str]:
    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "isa": torch.backends.cpu.get_cpu_capability(),
    }
    return about | (_gpu() if device != "cpu" and present(device) else {})


def _gpu() -> dict[str, str]:
    about = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": about.name,
        "gpu_capability": f"{about.major}.{about.minor}",
        "gpu_multiprocessors": str(about.multi_processor_count),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
