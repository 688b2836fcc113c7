"""The store of canonical datasets: one directory per Merkle root, and an index from what they were made of to it.

A dataset appears under its root complete or not at all; the index is written last. A damaged one is made again.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from bus.blobs import DirectoryBlobs
from bus.disk import make_directory, mode_of, sync_directory, write_file
from contracts.errors import Full, NotFound, NotVerified
from contracts.request.data import HOW_BATCHES_COME
from runtime.engine.dataset import Dataset, Manifest

PREPARATION = 4
"""Raised when the same source would now be prepared differently, so that old rows are never taken for new ones."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class StoredDataset:
    """A finished dataset, what was noticed when it was made, and where its rows' names are."""

    manifest: Manifest
    findings: list[dict[str, object]]
    origins: dict[str, object] | None


class DatasetStore:
    """The datasets in one directory of a store of blobs, shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = DirectoryBlobs(root.parent)

    def find(self, key: str) -> StoredDataset | None:
        """The dataset made of exactly this, if it is here and every byte of it is sound."""
        try:
            noted = json.loads(self._note(key).read_bytes())
            named = (noted["origins"] or {"blobs": {}})["blobs"]
            kept = StoredDataset(Dataset.open(self.root / noted["root"]).manifest, noted["findings"], noted["origins"])
        except (FileNotFoundError, NotFound, NotVerified, ValueError, KeyError, TypeError):
            return None
        return kept if all(map(self.blobs.has, named.values())) else None

    def stands(self, root: str | None) -> bool:
        """Whether a dataset is there under its root, and every byte of it sound."""
        try:
            return root is not None and Dataset.open(self.root / root).root == root
        except (NotFound, NotVerified):
            return False

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A directory of one's own, locked while its maker lives; what the dead have left is removed. `Full` without
        room."""
        try:
            with self._fresh() as fresh:
                yield fresh
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            cure = "Free space, or choose a home on another disk."
            raise Full(f"there is no room for the dataset in {self.root}: {error.strerror}.", cure=cure) from error

    def keep(self, key: str, fresh: Path, kept: StoredDataset) -> StoredDataset:
        """Put a finished dataset into its place, unless it is there already, and note what it was made of."""
        with _locked(self.root):
            self._place(fresh, kept.manifest.root)
        note = {"root": kept.manifest.root, "findings": kept.findings, "origins": kept.origins}
        place, mode = self._note(key), mode_of(self.blobs.root)
        make_directory(place.parent, mode)
        write_file(place, json.dumps(note, ensure_ascii=False).encode(), mode & 0o666)
        return kept

    def _place(self, fresh: Path, root: str) -> None:
        place = self.root / root
        if place.exists():
            try:
                Dataset.open(place)
            except (NotFound, NotVerified):
                # A damaged dataset is moved away; a process that has mapped its files keeps them until it ends.
                place.rename(self.root / f".new-{secrets.token_hex(8)}")
            else:
                return
        self._share(fresh)
        fresh.rename(place)
        sync_directory(self.root)

    def _share(self, folder: Path) -> None:
        """Give the dataset's files the modes of the store: who may read the store may read them, and no one else."""
        mode = mode_of(self.blobs.root)
        for file in folder.iterdir():
            file.chmod(mode & 0o666)
        folder.chmod(mode)

    @contextmanager
    def _fresh(self) -> Iterator[Path]:
        make_directory(self.root, mode_of(self.blobs.root))
        fresh = self.root / f".new-{secrets.token_hex(8)}"
        with _locked(self.root):
            for left in self.root.glob(".new-*"):
                try:
                    handle = _lock(left, wait=False)
                except (BlockingIOError, FileNotFoundError):
                    # Its maker lives, or has just taken it away.
                    continue
                shutil.rmtree(left, ignore_errors=True)
                os.close(handle)
            fresh.mkdir()
            handle = _lock(fresh, wait=False)
        try:
            yield fresh
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            os.close(handle)

    def _note(self, key: str) -> Path:
        return self.root / "index" / key


def key_of(digest: str, data: Mapping[str, object]) -> str:
    """What a dataset is made of, as one name: the source's digest and the data section, wherever its file lies.

    How a training takes its batches changes no dataset.
    """
    section = {name: value for name, value in data.items() if name not in ("path", *HOW_BATCHES_COME)}
    made_of = {"preparation": PREPARATION, "digest": digest, "data": section}
    return str(blake3(json.dumps(made_of, sort_keys=True, separators=(",", ":")).encode()).hexdigest())


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = _lock(directory, wait=True)
    try:
        yield
    finally:
        os.close(handle)


def _lock(directory: Path, *, wait: bool) -> int:
    """A descriptor that holds the directory until it is closed or its process dies; `BlockingIOError` when held."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
