"""The ledger's part of an audit: every root it signed computed again, the seal, and notes that were kept elsewhere.

Such notes, anchors, lie where the people who run a swarm cannot change them: in a file or in a git repository. A file
of anchors holds notes one after the other, each as the ledger signed it. Nothing in it is trusted.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bus import notes
from bus.tree import SubtreeRows
from contracts.envelope import Fact
from contracts.errors import Failed, InvalidInput, NotFound, NotVerified
from contracts.keyring import Key
from contracts.ledger import SessionSealed
from contracts.roles import LEDGER
from runtime.audit.log_digest import LogDigest, Noted, tree
from runtime.bundle import bundle_members
from runtime.log.archive import StoredSession
from runtime.log.session_log import SessionLog, newest_root
from runtime.replay.verdict import Divergence


class LedgerCheck:
    """The trees over a session's admitted records and over those of its keyring."""

    def __init__(self, told: LogDigest, ring: StoredSession | None) -> None:
        self._told = told
        self._session = told.state.id
        self._ring = ring
        self._ring_tree = tree(ring) if ring else SubtreeRows(b"")
        self._keys = [key for key in told.keys.keys.values() if key.role == LEDGER]

    def divergences(self) -> Iterator[Divergence]:
        """Every note and seal that does not say what the records say."""
        for fact, said in self._told.noted:
            against = self._against_tree(fact, said)
            if not against and isinstance(said, SessionSealed):
                against = self._against_seal(said)
            if against:
                yield Divergence(fact.position, fact.seq, fact.name, against)

    def anchored(self, anchors: Iterable[str] | None) -> Iterator[Divergence]:
        """Every note from outside that does not belong to this log, when there is one about it at all."""
        if anchors is None:
            return
        own = notes.origin(self._session)
        about = [note for note in anchors if notes.parse(note).origin == own]
        if not about:
            yield Divergence(0, 0, "anchor", f"no note that was given is about {self._session}")
        for note in about:
            against = self._against_anchor(note)
            if against:
                yield Divergence(min(notes.parse(note).size, self._told.size), 0, "anchor", against)

    def _against_anchor(self, note: str) -> str:
        said = notes.parse(note)
        if not any(_signs(key, note) for key in self._keys):
            return f"the anchored note over {said.size} events is signed by no key that this ledger ever held"
        if said.size > self._told.size:
            return f"an anchored note covers {said.size} events, and there are {self._told.size}: the end is missing"
        found = self._told.tree.root(said.size)
        if found != said.root:
            return f"the anchored root over {said.size} events is {said.root.hex()}, not {found.hex()}"
        sealed = self._told.state.sealed
        if said.extension("members") and (sealed is None or sealed.note != note):
            return f"the anchored seal over {said.size} events is not the seal that stands here"
        return ""

    def _against_tree(self, fact: Fact, said: Noted) -> str:
        if not 0 < said.size < fact.position:
            return f"it covers {said.size} events and is itself event {fact.position}"
        found = self._told.tree.root(said.size).hex()
        if found != said.root:
            return f"the root over {said.size} events is {found}, not {said.root}"
        last = self._told.seqs[said.size - 1]
        if last != said.last_seq:
            return f"event {said.size} has sequence {last}, not {said.last_seq}"
        if isinstance(said, SessionSealed):
            expected = bundle_members.sealed_tree_head(self._session, said)
        else:
            last_seq = (f"last-seq {said.last_seq}",)
            expected = notes.SignedTreeHead(notes.origin(self._session), said.size, bytes.fromhex(said.root), last_seq)
        if not any(key.valid(fact.seq) and _signs(key, said.note) for key in self._keys):
            return "no key that the ledger held then has signed its note"
        signed = notes.parse(said.note)
        return "" if signed == expected else f"its note says {signed}, and the event {expected}"

    def _against_seal(self, said: SessionSealed) -> str:
        heads = self._told.heads(said.size)
        if heads != said.lanes:
            lanes = sorted(lane for lane in heads.keys() | said.lanes.keys() if heads.get(lane) != said.lanes.get(lane))
            return f"the sealed heads of {', '.join(lanes)} are not those of the lanes"
        if against := self._against_keyring(said):
            return against
        expected = bundle_members.sealed_members(self._told.before)
        wrong = {name for name, digest in expected.items() if said.members.get(name) != digest}
        wrong |= said.members.keys() ^ (expected.keys() | set(bundle_members.FIXED_MEMBERS))
        return f"its members {', '.join(sorted(wrong))} are not those that the events name" if wrong else ""

    def _against_keyring(self, said: SessionSealed) -> str:
        genesis = self._told.state.genesis
        if genesis and said.keyring != genesis.keyring:
            return f"it names keyring head {said.keyring}, and the genesis {genesis.keyring}"
        if not 0 < said.keyring_size <= self._ring_tree.size:
            return f"it covers {said.keyring_size} events of the keyring, and there are {self._ring_tree.size}"
        found = self._ring_tree.root(said.keyring_size).hex()
        if found != said.keyring_root:
            return f"the root over {said.keyring_size} events of the keyring is {found}, not {said.keyring_root}"
        later = self._ring.history.facts[said.keyring_size :] if self._ring else []
        if later and later[0].seq <= said.last_seq:
            return f"it leaves out event {said.keyring_size + 1} of the keyring, which came before the session's last"
        return ""


def _signs(key: Key, note: str) -> bool:
    with suppress(NotVerified):
        notes.verify(note, key.public)
        return True
    return False


GIT = "git:"
FILE = "stigmergy-anchors"
_NOTE = re.compile(r"(?:[^\n]+\n)+\n— [^\n]+\n")


def newest_note(history: SessionLog) -> str:
    """The last note that the ledger signed in a session: that of the seal, when there is one."""
    return newest_root(history).note


def read_anchors(paths: Iterable[Path]) -> list[str]:
    """The notes in these files; `NotFound` without a file, `NotVerified` when one holds anything but notes."""
    return [note for path in paths for note in _read_notes(path)]


def keep_anchor(note: str, where: str) -> Path:
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


def _read_notes(path: Path) -> list[str]:
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
    if path.exists() and note in _read_notes(path):
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
