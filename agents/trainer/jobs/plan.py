"""Resolves a request against its dataset, and measures which bits this machine computes; trains nothing."""

import platform
import shutil
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from agents.trainer.jobs import MachineProfile, ProfileQuery
from contracts.errors import InvalidRequest, Problem
from contracts.request import Request
from runtime.engine import seal
from runtime.engine.dataset import Dataset
from runtime.engine.fingerprint import fingerprint, present
from runtime.engine.loop import ENGINE_BITS
from runtime.engine.resolve import Sizes, refuse_checkpoints_beyond, refuse_rows_beyond, resolve
from runtime.home.workloads import enlist
from runtime.jobs import process, resources
from runtime.jobs.job import most_threads
from runtime.node.capabilities import ResolveOrder
from runtime.replay import initial_state
from runtime.replay.jobs import MachineIdentity


def resolve_order(order: ResolveOrder) -> Mapping[str, Any]:
    """Every `auto` as a number."""
    enlist(order.workloads)
    request = Request.model_validate(order.request)
    cores, inherited = process.cores(), order.inherited
    # Each thread takes memory and its share of the machine, and a request names any number of them.
    wanted, most = inherited["threads"] if inherited else request.training.threads, most_threads(cores)
    if wanted != "auto" and wanted > most:
        message = f"{wanted} threads are more than the {most} with which a training begins on {cores} cores"
        raise InvalidRequest([Problem("training.threads", message, f"Write at most {most}, or `auto`.")])
    dataset = Dataset.open(order.dataset, verify=True)
    cuda = order.device != "cpu" and torch.cuda.is_available()
    sized = None
    # User code says nothing of its sizes, and what does not fit together has none.
    with suppress(InvalidRequest):
        sized = Sizes.of(request, dataset.facts)
    _refuse_without_room(sized, cuda=cuda)
    weights = initial_state.initial_tensors(order.blobs, order.initial)
    # A driver of a GPU takes memory in ways of its own, which are not to be judged here.
    with resources.bounded() if sized is None and not cuda else nullcontext():
        resolved = resolve(request, dataset.facts, cores=cores, cuda=cuda, initial=weights, inherited=inherited)
    counted = sized or Sizes.counted(request, resolved.parameters)
    _refuse_without_room(counted, cuda=cuda)
    if (free := resources.free_bytes()) is not None:
        refuse_rows_beyond(free, resolved, dataset.facts, request.data.workers)
    free = shutil.disk_usage(order.room).free
    refuse_checkpoints_beyond(free, counted, request, resolved)
    return resolved.as_json()


def _refuse_without_room(sized: Sizes | None, *, cuda: bool) -> None:
    free = resources.free_bytes()
    if sized is not None and free is not None:
        sized.refuse_beyond(free, device="cuda" if cuda else "cpu")


def identify(asked: ProfileQuery) -> MachineProfile:
    """What makes the bits: fingerprint by operator family, engine bits, and the environment in words."""
    seal.apply(**asdict(asked.seal))
    measured = fingerprint(asked.device, asked.precision)
    identity = MachineIdentity(measured.digest, dict(measured.families), ENGINE_BITS)
    return MachineProfile(identity, _environment(asked.device))


def _environment(device: str) -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        cpu = platform.processor()
    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu,
        "isa": torch.backends.cpu.get_cpu_capability(),
    }
    if device == "cpu" or not present(device):
        return about
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    return about | {
        "gpu": gpu.name,
        "gpu_capability": f"{gpu.major}.{gpu.minor}",
        "gpu_multiprocessors": str(gpu.multi_processor_count),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }
