"""Whether a fork begins where its genesis says: the genesis is made again from the parent's log, where that is at hand.

The state itself is compared with what the parent recorded of it; where the parent wrote no checkpoint there, a full
audit computes it again. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from bus.blobs import DirectoryBlobs, digest_of
from contracts.envelope import Fact
from contracts.errors import InvalidInput, NotFound, NotVerified, Refused, SwarmError
from contracts.fork import Fork
from contracts.request.reading import flat
from contracts.session import SessionState
from contracts.trainer import CheckpointWritten
from runtime.audit.log_digest import tree
from runtime.fork.genesis import ForkRequest, fork_genesis
from runtime.log.archive import Archive, StoredSession
from runtime.replay import initial_state
from runtime.replay.verdict import Divergence

if TYPE_CHECKING:
    from runtime.jobs.children import Children
    from runtime.replay.audit_subject import AuditSubject


SIGNED = {"root", "size", "sealed"}
"""What the ledger had signed by then is compared with its tree, not with what it has signed since."""

UNKNOWN = {"state_root", "blob"}
"""What may have been recorded of the parent only after the fork was made; a full audit computes it then."""


class ForkFindings(NamedTuple):
    """What does not hold of a fork's beginning, and what could not be looked at; nothing of a session that is none."""

    divergences: tuple[Divergence, ...] = ()
    unchecked: tuple[str, ...] = ()


def check_genesis(kept: StoredSession, archive: Archive | None, blobs: DirectoryBlobs | None) -> ForkFindings:
    """The genesis of a fork against its parent's log; without an archive there is no parent at hand."""
    state = kept.history.state
    fork = state.fork
    if fork is None:
        return ForkFindings()
    parent = _parent(fork, archive)
    if parent is None or blobs is None:
        signed = f", which its ledger signed over {fork.size} events as {fork.root}" if fork.root else ""
        told = f"its parent {fork.session} is not here: that it stood there at step {fork.step}{signed}"
        return ForkFindings(unchecked=(f"{told}, was not checked",))
    against = [*_against_tree(fork, parent), *_against_log(state, fork, parent, blobs)]
    first = kept.history.facts[0]
    told = f"its parent {fork.session} was read, and is audited by itself: swarm audit {fork.session}"
    return ForkFindings(tuple(Divergence(1, first.seq, first.name, one) for one in against), (told,))


def unchecked_in_swarm(session: SessionState, mode: str) -> tuple[str, ...]:
    """What an audit of this mode in a swarm does not look at, and one beside it does."""
    fork = session.fork
    if fork is None or fork.state_root is not None or mode in ("log", "spot"):
        return ()
    told = f"the state of step {fork.step} was not computed from its parent: swarm audit {session.id} --mode full"
    return (told,)


async def check_start(subject: AuditSubject, children: Children, *, trust_code: bool) -> ForkFindings:
    """The state in which a fork begins, computed from its parent where no record of the parent vouches for it."""
    fork = subject.session.fork
    if fork is None or fork.state_root is not None:
        return ForkFindings()
    from runtime.fork.start import recompute_state
    from runtime.home.home import Home
    from runtime.replay.audit_subject import AuditSubject

    parent = _parent(fork, Archive(Home(subject.home)) if subject.home else None)
    written = (fact for fact in subject.kept.history.facts if isinstance(fact.event, CheckpointWritten))
    begun = next((fact for fact in written if getattr(fact.event, "step", None) == fork.step), None)
    if parent is None or begun is None:
        absent = f"the state of step {fork.step} was not computed from its parent, which is not here"
        return ForkFindings(unchecked=(absent,))
    of_parent = AuditSubject(parent, subject.blobs, subject.work, subject.home)
    try:
        with TemporaryDirectory(prefix="origin-", dir=subject.work) as folder:
            made = await recompute_state(of_parent, fork, children, Path(folder), trust_code=trust_code)
    except NotVerified as error:
        return ForkFindings((_diverges(begun, f"its parent does not lead to it: {error.message}"),))
    except (Refused, InvalidInput) as error:
        return ForkFindings(unchecked=(f"the state of step {fork.step} could not be computed: {error.message}",))
    wrong = next((name for name in ("state_root", "blob") if getattr(made, name) != getattr(begun.event, name)), "")
    if not wrong:
        return ForkFindings()
    message = f"it begins with {wrong} {getattr(begun.event, wrong)}, and its parent leads to {getattr(made, wrong)}"
    return ForkFindings((_diverges(begun, message),))


def _against_tree(fork: Fork, parent: StoredSession) -> Iterator[str]:
    if not fork.size:
        return
    known = tree(parent)
    if fork.size > known.size:
        yield f"it names {fork.size} events of its parent, which has {known.size} here"
    elif known.root(fork.size).hex() != fork.root:
        yield f"the root over {fork.size} events of its parent is {known.root(fork.size).hex()}, not {fork.root}"


def _against_log(state: SessionState, fork: Fork, parent: StoredSession, blobs: DirectoryBlobs) -> Iterator[str]:
    reading = _ReadOnlyBlobs(blobs)
    try:
        inherited = initial_state.InheritedPlan.of(state, blobs)
        asked = ForkRequest(fork.step, fork.segment, fork.set, inherited.without)
        made = fork_genesis(parent.history, asked, reading)
    except NotFound:
        return  # what it inherits is not here, which the blobs_check tells
    except SwarmError as error:
        yield f"its parent's log gives no such fork: {error.message}"
        return
    ours, theirs = (one.model_dump(mode="json", exclude=SIGNED) for one in (fork, made.fork))
    yield from (
        f"{name} is {ours[name]!r}, and its parent's log gives {theirs[name]!r}"[:400]
        for name in ours
        if ours[name] != theirs[name] and not (name in UNKNOWN and ours[name] is None)
    )
    wanted, said = flat(made.request), flat(state.request)
    # A later version may know more keys than the one that wrote this.
    wrong = next((path for path in said if said[path] != wanted.get(path)), None)
    if wrong is not None:
        yield f"the request has {wrong} {said[wrong]!r}, and its parent's with these changes {wanted.get(wrong)!r}"


class _ReadOnlyBlobs:
    """A store of blobs that keeps nothing: what would be put there is only named."""

    def __init__(self, blobs: DirectoryBlobs) -> None:
        self.get = blobs.get

    def put(self, content: bytes) -> str:
        return digest_of(content)


def _parent(fork: Fork, archive: Archive | None) -> StoredSession | None:
    try:
        return archive.read(fork.session) if archive else None
    except (NotFound, NotVerified):
        return None


def _diverges(fact: Fact, message: str) -> Divergence:
    return Divergence(fact.position, fact.seq, fact.name, message)
