"""Fences beside those of the import linter: what it cannot see, and that it sees everything."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
ROOMS = tuple(SETTINGS["root_packages"])
NAME = re.compile(rf"({'|'.join(ROOMS)})(\.\w+)*\.?(:\w+)?")
"""A module, a function of one as jobs are called between processes, or the beginning of such a name."""

EXCEPTIONS = {
    ("runtime/node/roster.py", "agents."): "the roster loads the agents, whom nobody imports",
    ("runtime/jobs/job.py", "runtime.engine.loop"): "a zygote imports ahead what its forks will need",
    ("runtime/jobs/job.py", "runtime.engine.evaluate"): "as above",
    ("runtime/jobs/job.py", "runtime.engine.fingerprint"): "as above",
    ("runtime/jobs/job.py", "runtime.engine.checkpoint"): "as above",
    ("runtime/jobs/job.py", "runtime.engine.parts."): "as above",
    ("runtime/jobs/job.py", "runtime.audit.recomputation"): "as above",
    ("runtime/jobs/job.py", "runtime.replay.stepwise"): "as above",
    ("runtime/api/hosting.py", "runtime.cli.start"): "the entry point: a host that a program starts is `swarm up`",
    ("contracts/request/training.py", "runtime.engine.plain_kinds"): "a metric is one file: which there are, parts say",
    ("runtime/home/workload_file.py", "runtime.engine.workload"): "what files of users may call the base class",
}
"""Strings that name a module of another room, and why each may."""

BY_NAME = {"openai": "agents/diagnostician/advisor.py", "pynvml": "agents/resource_monitor/gpus.py"}
"""Dependencies that are loaded by name, and the one file that may."""


def product() -> list[str]:
    """The Python files of the product."""
    return [path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")]


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    """`contracts` and `bus` are one room each; the runtime has floors, and every agent has a package."""
    first, *rest = module.split(":", maxsplit=1)[0].split(".")
    return first if first in ("contracts", "bus") or not rest else f"{first}.{rest[0]}"


def strings(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def names_elsewhere(path: str) -> set[tuple[str, str]]:
    """Names of modules of other rooms that stand in a file's strings."""
    own = room_of(module_of(path))
    return {(path, text) for text in strings(path) if "." in text and NAME.fullmatch(text) and room_of(text) != own}


def test_no_string_names_a_module_of_another_room() -> None:
    assert {pair for path in product() for pair in names_elsewhere(path)} == set(EXCEPTIONS)


@pytest.mark.parametrize(
    "text", ["agents.trainer.jobs.plan:main", "runtime.audit.recomputation", "agents.", "bus.memory"]
)
def test_such_a_string_would_be_found(text: str) -> None:
    assert NAME.fullmatch(text)
    assert room_of(text) != "runtime.cli"


def test_what_is_loaded_by_name_is_loaded_in_one_file() -> None:
    seen = {(text, path) for path in product() for text in strings(path) if text in BY_NAME}
    assert seen == set(BY_NAME.items())


def test_the_import_linter_sees_every_file_of_the_product() -> None:
    seen = grimp.build_graph(*ROOMS, include_external_packages=False, cache_dir=None).modules
    assert seen == {module_of(path) for path in product()}


def test_every_room_says_in_a_sentence_what_it_is_for() -> None:
    folders = {Path(path).parent for path in product()}
    silent = []
    for folder in sorted(folders):
        said = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        if not said.split("\n")[0].endswith("."):
            silent.append(str(folder))
    assert silent == []


def test_nats_is_imported_by_one_file() -> None:
    graph = grimp.build_graph(*ROOMS, include_external_packages=True, cache_dir=None)
    assert graph.find_modules_that_directly_import("nats") == {"bus.jetstream"}


DECLARED = """
import importlib, pkgutil, sys
from runtime.jobs.job import Job, find
found = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    mine = [one for one in vars(module).values() if isinstance(one, Job) and one.function.__module__ == name]
    found |= {one.name: one for one in mine}
    # A module beside a declaration would take the place of a job that is called as it is.
    beside = {one.name for one in pkgutil.iter_modules(getattr(module, "__path__", ()))}
    assert not beside & {one.function.__qualname__ for one in mine}, name
for name, one in found.items():
    assert find(name) is one, name
    one.signature
assert "torch" not in sys.modules, "a caller of a job needs no torch"
print(len(found))
"""


AHEAD = """
import importlib, sys
from runtime.jobs import process
from runtime.jobs.job import Job
ahead = set()
for name in sys.argv[1:]:
    jobs = [one for one in vars(importlib.import_module(name)).values() if isinstance(one, Job)]
    ahead |= {module for job in jobs for module in job.ahead}
assert ahead
for module in ahead:
    importlib.import_module(module)
    assert process.thread_count() == 1, module
"""


def test_what_a_zygote_imports_ahead_for_its_forks_is_there_and_starts_no_thread() -> None:
    sealed = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", AHEAD, *declaring()], capture_output=True, text=True, check=False, env=sealed
    )
    assert done.returncode == 0, done.stderr


def declaring() -> list[str]:
    """The modules that declare jobs."""
    texts = ((path, (ROOT / path).read_text(encoding="utf-8")) for path in product())
    return [module_of(path) for path, text in texts if re.search(r"^@job\(", text, re.MULTILINE)]


def test_every_job_is_found_by_its_name_its_types_travel_and_its_callers_need_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", DECLARED, *declaring()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    decorators = (
        len(re.findall(r"^@job\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)) for path in product()
    )
    assert int(done.stdout) == sum(decorators)


def test_no_string_names_a_job() -> None:
    """Whoever has a job run holds the job itself, or asks for a capability."""
    assert [(path, text) for path in product() for text in strings(path) if NAME.fullmatch(text) and ":" in text] == []


def test_the_runtime_names_no_module_of_an_agent_but_in_the_roster() -> None:
    named = {pair for path in product() if path.startswith("runtime/") for pair in names_elsewhere(path)}
    assert {pair for pair in named if pair[1].startswith("agents")} == {("runtime/node/roster.py", "agents.")}
