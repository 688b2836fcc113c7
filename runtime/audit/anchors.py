"""Signed notes kept where the people who run a swarm cannot change them: in a file or in a git repository.

A file of anchors holds notes one after the other, each as the ledger signed it. Nothing in it is trusted: an audit
verifies every note and compares what it says with the log.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from bus import notes
from contracts.errors import Failed, InvalidInput, NotFound, NotVerified
from runtime.log.session_log import SessionLog, newest_root

GIT = "git:"
FILE = "stigmergy-anchors"
_NOTE = re.compile(r"(?:[^\n]+\n)+\n— [^\n]+\n")


def newest_note(history: SessionLog) -> str:
    """The last note that the ledger signed in a session: that of the seal, when there is one."""
    return newest_root(history).note


def read_anchors(paths: Iterable[Path]) -> list[str]:
    """The notes in these files; `NotFound` without a file, `NotVerified` when one holds anything but notes."""
    return [note for path in paths for note in _notes(path)]


def keep(note: str, where: str) -> Path:
    """Append the note to a file, or with `git:DIR` to the anchors of a repository and commit it; once is enough."""
    if not where.startswith(GIT):
        path = Path(where).absolute()
        _append(path, note)
        return path
    folder = Path(where.removeprefix(GIT)).absolute()
    path = folder / FILE
    _git(folder, "rev-parse", "--is-inside-work-tree")
    if _append(path, note):
        _git(folder, "add", "--", FILE)
        said = notes.parse(note)
        _git(folder, "commit", "-q", "-m", f"{said.origin}: {said.size} events, {said.root.hex()}", "--", FILE)
    return path


def _notes(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there are no anchors at {str(path)!r}.", cure="Name the file that was kept.") from None
    except UnicodeDecodeError:
        text = ""
    found = _NOTE.findall(text)
    if not found or "".join(found) != text:
        raise NotVerified(f"{path} holds something else than signed notes.", cure="Give the file as it was kept.")
    for note in found:
        notes.parse(note)
    return found


def _append(path: Path, note: str) -> bool:
    """Whether the note was not there yet."""
    if path.exists() and note in _notes(path):
        return False
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(note)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}.", cure="Name a file that can be written.") from None
    return True


def _git(folder: Path, *arguments: str) -> None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)  # noqa: S607 - the git of whoever anchors
    except FileNotFoundError:
        raise NotFound("there is no git here.", cure="Install git, or anchor to a file.") from None
    if done.returncode:
        what = (done.stderr or done.stdout).strip().splitlines()[:1]
        raise Failed(f"git {arguments[0]} in {folder}: {''.join(what)}", cure="Make it a repository: git init")
