"""Which agents there are, as names. Their packages are loaded only when an agent is to run; no module imports them."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Collection, Iterable
from importlib.metadata import entry_points
from pathlib import Path

from contracts.errors import InvalidInput, NotFound, UserCodeFailed
from contracts.roles import BUILT_IN
from runtime.jobs.job import Job
from runtime.node.agent import Agent
from runtime.node.capabilities import A, Capability, O, R, T


def load(name: str) -> type[Agent]:
    """The agent class of a built-in role, of an entry point in `stigmergy.agents`, or of PATH:CLASS."""
    if name in BUILT_IN:
        return _only_agent(importlib.import_module(f"agents.{name}.agent").__name__, name)
    if ":" in name or name.endswith(".py"):
        return _from_file(name)
    for point in entry_points(group="stigmergy.agents"):
        if point.name == name:
            found: type[Agent] = point.load()
            return found
    raise NotFound(f"there is no agent {name!r}.", cure=f"Known: {', '.join(BUILT_IN)}; or give PATH:CLASS.")


def load_all(names: Iterable[str] = BUILT_IN) -> dict[str, type[Agent]]:
    """Load the agent classes of these roles, by role; this imports their packages."""
    return {name: load(name) for name in names}


def job_for(capability: Capability[A, R, T, O]) -> Job[A, R, T, O]:
    """The job that serves a capability; this loads the agent that declares it."""
    return next(one.job for one in load(capability.role).services if one.name == capability.name)


def hosted_roles(without: Collection[str]) -> tuple[str, ...]:
    """The built-in roles that a host employs itself when these run elsewhere."""
    strangers = sorted(set(without) - set(BUILT_IN))
    if strangers:
        cure = f"Known: {', '.join(BUILT_IN)}."
        raise InvalidInput(f"there is no built-in agent {strangers[0]!r}.", cure=cure, path="without")
    return tuple(role for role in BUILT_IN if role not in without)


def _only_agent(module: str, name: str) -> type[Agent]:
    members = inspect.getmembers(sys.modules[module], inspect.isclass)
    found = [one for _, one in members if issubclass(one, Agent) and one.__module__ == module]
    if len(found) != 1:
        raise NotFound(f"{module} defines {len(found)} agents.", cure=f"Name one: {name}:CLASS")
    return found[0]


def _from_file(name: str) -> type[Agent]:
    path_text, _, wanted = name.partition(":")
    path = Path(path_text).absolute()
    if not path.is_file():
        raise NotFound(f"there is no file {str(path)!r}.", cure="Give PATH:CLASS of an agent.")
    module_name = f"stigmergy_guest_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise NotFound(f"{str(path)!r} is no Python file.", cure="Give PATH:CLASS of an agent.")
    module = importlib.util.module_from_spec(spec)
    # Annotations are resolved through sys.modules, so the module must be there before its classes are made.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        cure = "Correct it."
        raise UserCodeFailed(f"{path} cannot be loaded: {type(error).__name__}: {error}.", cure=cure) from error
    if not wanted:
        return _only_agent(module_name, name)
    found = getattr(module, wanted, None)
    if not (inspect.isclass(found) and issubclass(found, Agent)):
        raise NotFound(f"{path} has no agent {wanted!r}.", cure="Name a subclass of stigmergy.Agent.")
    return found
