"""The user's models that requests may name: a registry of files with pinned digests. A host never runs their code.

`add` looks at a file, has a child import it and writes it down; `resolve` gives the host path, class and digest of a
name; `load` and `enlist` are for jobs, which run exactly the bytes whose digest was pinned.
"""

from __future__ import annotations

import difflib
import fcntl
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import orjson

from bus.disk import make_directory, write_file
from contracts.errors import InvalidInput, NotFound, NotVerified, UserCodeFailed
from runtime.home.workload_file import absent_imports, digest_of, option_names, read_source, workload_classes
from runtime.jobs.job import job

if TYPE_CHECKING:
    from bus.blobs import DirectoryBlobs
    from runtime.engine.workload import Workload
    from runtime.jobs.children import Children

GROUP = "stigmergy.workloads"
"""The entry points by which an installed package brings workloads."""

FILE = "workloads.json"


@dataclass(frozen=True, slots=True)
class WorkloadEntry:
    """One workload; `module` is set when an installed package brings it.

    `options` are the names that requests may set, as they were when it was added; None when they were not looked for.
    """

    name: str
    path: str
    class_name: str
    digest: str
    module: str = ""
    options: tuple[str, ...] | None = None


class Workloads:
    """The workloads known in one home: those added to it, then those of installed packages."""

    def __init__(self, home: Path) -> None:
        self._file = home / FILE

    def list(self) -> list[WorkloadEntry]:
        """Every workload by name; one that was added hides an installed one of the same name."""
        known = {}
        for point in metadata.entry_points(group=GROUP):
            path = _module_file(point.module)
            if path is not None and point.attr:
                digest = digest_of(read_source(path))
                known[point.name] = WorkloadEntry(point.name, str(path), point.attr, digest, point.module)
        known |= self._added()
        return [known[name] for name in sorted(known)]

    def resolve(self, name: str) -> WorkloadEntry:
        """The workload of that name; raises `NotFound`, or `NotVerified` when its file is not what was added."""
        found = next((one for one in self.list() if one.name == name), None)
        if found is None:
            known = [one.name for one in self.list()]
            near = difflib.get_close_matches(name, known, 1)
            cure = f"Did you mean {near[0]!r}?" if near else "Add it with `swarm workload add FILE`."
            raise NotFound(f"there is no workload {name!r}.", cure=f"{cure} Known: {', '.join(known) or 'none'}.")
        now = digest_of(read_source(Path(found.path)))
        if now != found.digest:
            raise _changed(found.path, found.digest, now)
        return found

    def needed(self, request: Mapping[str, Any]) -> Sequence[WorkloadEntry]:
        """The workloads that a request names for its model and its data, each once."""
        sections = (request.get("model"), request.get("data"))
        names = [one["workload"] for one in sections if isinstance(one, Mapping) and one.get("workload")]
        return [self.resolve(name) for name in dict.fromkeys(names)]

    def claimed(
        self, name: str, digest: str, blobs: DirectoryBlobs, *, trusted: bool
    ) -> tuple[WorkloadEntry | None, str]:
        """The workload that a claim names, or the reason why it cannot be run here.

        One that was added here under its digest was trusted then; a source that came along is run only when it is now.
        """
        ours = None
        with suppress(NotFound, NotVerified):
            ours = self.resolve(name)
        if ours is not None and ours.digest == digest:
            return ours, ""
        if not blobs.has(digest):
            here = f"which is {ours.digest} here" if ours else "which is not here"
            return None, f"code of workload {name!r}, {digest}, {here}"
        if not trusted:
            return None, f"code of workload {name!r}, which came with the session (give --trust-code to run it)"
        place = blobs.check(digest)
        classes = workload_classes(place.read_bytes(), place)
        if len(classes) != 1:
            many = f"whose file has {len(classes)} workloads (add it: swarm workload add)"
            return None, f"code of workload {name!r}, {many}"
        return WorkloadEntry(name, str(place), classes[0], digest), ""

    async def add(self, path: str, children: Children, *, name: str = "") -> WorkloadEntry:
        """Register `FILE` or `FILE:CLASS` under a name (the file's own by default), once a child could import it."""
        found = inspect_file(path, name=name)
        found = replace(found, options=await children.run(read_options, found))
        with self._locked():
            self._write(self._added() | {found.name: found})
        return found

    def remove(self, name: str) -> None:
        """Forget a workload that was added; its file stays."""
        with self._locked():
            added = self._added()
            if name not in added:
                raise NotFound(f"no workload {name!r} was added here.", cure=f"Added: {', '.join(added) or 'none'}.")
            self._write({key: one for key, one in added.items() if key != name})

    def _added(self) -> dict[str, WorkloadEntry]:
        try:
            added = {}
            for name, entry in orjson.loads(self._file.read_bytes()).items():
                options = None if entry.get("options") is None else tuple(entry["options"])
                added[name] = WorkloadEntry(name, entry["path"], entry["class"], entry["digest"], options=options)
            return added
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidInput(f"{self._file} cannot be read.", cure="Remove it and add the workloads again.") from None

    def _write(self, added: Mapping[str, WorkloadEntry]) -> None:
        body = {
            one.name: {"path": one.path, "class": one.class_name, "digest": one.digest, "options": one.options}
            for one in added.values()
        }
        write_file(self._file, orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two people adding at once lose nothing."""
        make_directory(self._file.parent)
        with self._file.with_name(f".{FILE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def inspect_file(path: str, *, name: str = "") -> WorkloadEntry:
    """What `FILE` or `FILE:CLASS` would be registered as, from its text alone; nothing of it is run."""
    text, _, wanted = path.rpartition(":")
    if not text or not wanted.isidentifier():
        text, wanted = path, ""
    file = Path(text).resolve()
    source = read_source(file)
    classes = workload_classes(source, file)
    if wanted and wanted not in classes:
        raise InvalidInput(
            f"{file} has no workload class {wanted!r}.", cure=f"It has: {', '.join(classes) or 'none'}.", path=str(file)
        )
    if not classes:
        cure = "Write `from stigmergy import Workload` and `class MyModel(Workload): ...`."
        if absent := absent_imports(source):
            cure += f" It also imports what is not installed: {', '.join(absent)}."
        raise InvalidInput(f"{file} defines no Workload.", cure=cure, path=str(file))
    if not wanted and len(classes) > 1:
        cure = f"Say which: `swarm workload add {text}:{classes[0]}`."
        raise InvalidInput(f"{file} defines {len(classes)} workloads: {', '.join(classes)}.", cure=cure, path=str(file))
    return WorkloadEntry(name or file.stem, str(file), wanted or classes[0], digest_of(source))


def enlist(entries: Iterable[WorkloadEntry]) -> None:
    """In a job: load workloads and make the engine know them by name."""
    from runtime.engine.workload import register

    for one in entries:
        register(one.name, load(one.path, one.class_name, one.digest, module=one.module))


def load(path: str, class_name: str, digest: str, *, module: str = "") -> type[Workload]:
    """In a job: the workload class, from a source that is still the pinned one; raises `NotVerified` otherwise."""
    from runtime.engine.workload import Workload

    source = read_source(Path(path))
    if (now := digest_of(source)) != digest:
        raise _changed(path, digest, now)
    imported = importlib.import_module(module) if module else _imported(path, source, digest)
    found = getattr(imported, class_name, None)
    if not isinstance(found, type) or not issubclass(found, Workload):
        cure = "Derive it from `stigmergy.Workload`."
        raise InvalidInput(f"{class_name!r} in {path} is not a workload.", cure=cure, path=path)
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UserCodeFailed(f"{class_name} in {path} lacks {', '.join(missing)}.", cure="Define what is missing.")
    return found


@job(purpose="probe")
def read_options(entry: WorkloadEntry) -> tuple[str, ...]:
    """Load one workload and give the names of its options; what its import raises is the user's to see."""
    return tuple(option_names(load(entry.path, entry.class_name, entry.digest, module=entry.module).Options))


class _VerifiedLoader(importlib.machinery.SourceFileLoader):
    """Runs the bytes that were verified, not what the file holds a moment later; keeps no bytecode."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """The verified source, compiled."""
        return self.source_to_code(self._source, self.path)


def _imported(path: str, source: bytes, digest: str) -> ModuleType:
    name = f"workload_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _VerifiedLoader(name, path, source)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise InvalidInput(f"{path} is no Python source.", cure="Name a file that ends in .py.", path=path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    try:
        loader.exec_module(made)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        beside = Path(path).parent / (error.name or "").partition(".")[0]
        if beside.with_suffix(".py").exists() or beside.is_dir():
            cure = "Only the added file is pinned: put both into one file, or install the imported one as a package."
            raise UserCodeFailed(f"{path} imports {error.name!r}, a file beside it.", cure=cure, path=path) from error
        raise
    except BaseException:
        del sys.modules[name]
        raise
    return made


def _changed(path: str, pinned: str, now: str) -> NotVerified:
    cure = f"If the change is meant, pin it: `swarm workload add {path}`."
    return NotVerified(f"{path} has changed: it was added as {pinned} and is now {now}.", cure=cure, path=path)


def _module_file(module: str) -> Path | None:
    """Where an installed module lies; unlike `importlib.util.find_spec` this imports none of its parents."""
    places: list[str] | None = None
    spec = None
    for depth, _ in enumerate(parts := module.split("."), 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:depth]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None
