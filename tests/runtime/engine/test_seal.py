"""A sealed process reads its settings back; its fingerprint is the same in any other one sealed alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from contracts.errors import Failed
from runtime.engine import fingerprint as prints
from runtime.engine import seal
from runtime.engine.environment import UNSET, settings, strays
from runtime.engine.environment import sealed as sealed_from

MEASURE = """
import json, time
began = time.process_time()
import torch
imported = time.process_time() - began
from runtime.engine import seal
seal.apply(profile="exact", threads={threads})
from runtime.engine.fingerprint import fingerprint
began = time.process_time()
found = fingerprint("cpu", "{precision}")
print(json.dumps([found.digest, dict(found.families), (time.process_time() - began) / imported]))
"""


def python(code, environment):
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def sealed(threads=1, **more):
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    return sealed_from({**kept, **more}, profile="exact", threads=threads)


def measured(threads=1, precision="fp32", **more):
    done = python(MEASURE.format(threads=threads, precision=precision), sealed(threads) | more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def usual():
    return measured()


def test_two_processes_have_one_fingerprint_of_about_forty_families_that_costs_less_than_importing_torch(usual):
    """In processor time, so that other work on the machine does not show in it."""
    digest, families, cost = usual
    assert measured()[:2] == [digest, families]
    assert 40 <= len(families) <= 60
    assert cost < 1


def test_threads_and_precision_show_in_the_fingerprint(usual):
    digests = {usual[0], measured(threads=2)[0], measured(precision="bf16")[0]}
    assert len(digests) == 3


def test_a_family_that_a_machine_has_no_kernel_for_is_named_and_the_others_are_measured(monkeypatch):
    def fails(make):
        raise RuntimeError("could not create a primitive descriptor")

    whole = prints.fingerprint()
    monkeypatch.setattr(prints, "FAMILIES", prints.FAMILIES | {"softmax": fails})
    found = prints.fingerprint()
    assert found.families == whole.families | {"softmax": prints.UNABLE}
    assert found.digest != whole.digest


def test_the_fingerprint_of_a_device_that_is_absent_is_nobodys(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = prints.fingerprint("cuda")
    assert found.families == {"cuda device": "absent"}
    assert found.digest != prints.fingerprint().digest


def test_what_would_choose_other_kernels_does_not_come_in():
    environment = sealed(ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="AVX2")
    assert not set(environment) & set(UNSET)
    assert environment["MKL_CBWR"] == "AUTO"


@pytest.mark.parametrize(
    "stray",
    [{"ATEN_CPU_CAPABILITY": "default"}, {"MKL_CBWR": "COMPATIBLE"}, {"OMP_NUM_THREADS": "2"}, {"PYTHONHASHSEED": "1"}],
)
def test_an_environment_that_is_not_sealed_is_refused_by_the_name_of_what_is_wrong(monkeypatch, stray):
    environment = sealed() | stray
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Failed, match=f"{next(iter(stray))} is '{next(iter(stray.values()))}'"):
        seal.verify(profile="exact", threads=1)


def test_a_process_that_is_not_sealed_computes_nothing():
    done = python(MEASURE.format(threads=1, precision="fp32"), sealed() | {"MKL_CBWR": "COMPATIBLE"})
    assert done.returncode != 0
    assert done.stdout == ""
    assert "MKL_CBWR" in done.stderr


def test_threads_that_wait_sleep_unless_they_are_told_otherwise_which_is_nobodys_offence(monkeypatch):
    assert sealed(threads=2)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert sealed(OMP_WAIT_POLICY="ACTIVE")["OMP_WAIT_POLICY"] == "ACTIVE"
    for name, value in settings("exact", 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert set(strays(settings("exact", 1))) <= {"PYTHONHASHSEED"}  # which a process is started with, or not


def test_settings_changed_afterwards_are_noticed():
    code = (
        "from runtime.engine import seal; import torch; seal.apply(profile='exact', threads=1);"
        "torch.use_deterministic_algorithms(True, warn_only=True); seal.verify(profile='exact', threads=1)"
    )
    done = python(code, sealed())
    assert "warn only is True" in done.stderr


def test_the_fast_profile_asks_for_less():
    environment = sealed_from({}, profile="fast", threads=2)
    assert "MKL_CBWR" not in environment
    assert environment["OMP_NUM_THREADS"] == "2"


def test_importing_the_engine_starts_no_thread():
    code = (
        "import runtime.engine.loop, runtime.engine.fingerprint, runtime.engine.checkpoint, pathlib;"
        "print(len(list(pathlib.Path('/proc/self/task').iterdir())))"
    )
    if sys.platform == "linux":
        assert python(code, sealed()).stdout.strip() == "1"


RECHECK = """
import os, torch
from runtime.engine import seal
from contracts.errors import Failed
seal.apply(profile="exact", threads=1)

def refused(change, undo):
    change()
    try:
        seal.recheck(profile="exact", threads=1)
        print("-")
    except Failed as error:
        print(error.message)
    undo()
    seal.recheck(profile="exact", threads=1)

name, given = "CUBLAS_WORKSPACE_CONFIG", os.environ["CUBLAS_WORKSPACE_CONFIG"]
refused(lambda: os.environ.update(PYTHONHASHSEED="7", OMP_NUM_THREADS="9"), lambda: None)
refused(lambda: os.environ.update({name: ":16:8"}), lambda: os.environ.update({name: given}))
refused(lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1))
cudnn = torch.backends.cudnn
refused(lambda: setattr(cudnn, "benchmark", True), lambda: setattr(cudnn, "benchmark", False))
"""


def test_what_user_code_changes_is_named_afterwards_and_what_is_read_at_the_start_alone_is_not():
    done = python(RECHECK, sealed())
    assert done.returncode == 0, done.stderr
    harmless, *found = done.stdout.splitlines()
    assert harmless == "-"
    assert [one.partition("sealed: ")[2].partition(" is ")[0] for one in found] == [
        "CUBLAS_WORKSPACE_CONFIG",
        "threads",
        "cudnn.benchmark",
    ]
