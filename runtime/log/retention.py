"""Which checkpoints are kept, as what, and which may go: pure rules over the fold; and the marks that keep a blob.

Nothing is deleted here. The marks lie beside the blobs: a sealed session needs its own long after it left memory.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bus.disk import make_directory, mode_of, room_for, sync_directory
from contracts.checkpoint_keeper import Role
from contracts.request.training import Checkpoints
from contracts.session import Checkpoint, SessionState
from contracts.trainer import TrainingCompleted
from contracts.training import wanted_exports

Place = tuple[int, int]
"""A checkpoint's segment and step: what was written twice there is one checkpoint."""

NAMES = ("best", "last", "final")
"""What a checkpoint can be called, besides its step."""

JUDGED = ("best", "final")
_TRAJECTORY = ("data", "model", "loss", "optimizer", "schedule", "training", "reproducibility")


def place(kept: Checkpoint) -> Place:
    """The segment and step at which a checkpoint was written."""
    return kept.written.segment, kept.written.step


def roles(session: SessionState) -> dict[Place, list[Role]]:
    """What every usable checkpoint on the path is kept as; those that are kept as nothing are left out."""
    limits = Checkpoints.model_validate(session.request.get("checkpoints", {}))
    path = {place(kept): kept for kept in session.training.path_checkpoints() if kept.usable}
    steps = sorted({step for _, step in path})
    improved = [seen.step for seen in session.training.evaluations if seen.improved]
    largest = max((kept.written.bytes for kept in path.values()), default=0)
    # Before a claim has resolved the planned spacing every checkpoint is its own anchor.
    every = int(session.training.claim.resolved.get("every_steps", 1)) if session.training.claim else 1
    most = limits.anchors
    if limits.budget_bytes is not None and largest:
        # The best and the last are counted as if they were all different: what is counted does not depend on which
        # checkpoint is the best now, so that anchors once deleted are not missed.
        most = min(most, limits.budget_bytes // largest - limits.keep_best - limits.keep_last - 1)
    wanted: dict[Role, set[int]] = {
        "best": set(improved[-limits.keep_best :]),
        "last": set(steps[-limits.keep_last :]),
        "anchor": anchors(steps, every, most) | given(session),
        "final": {session.outcome.step} if isinstance(session.outcome, TrainingCompleted) else set(),
    }
    found = {here: [role for role, at in wanted.items() if here[1] in at] for here in path}
    for here, kept in path.items():
        if kept.written.reason == "final" and "final" not in found[here]:
            found[here].append("final")
    return {here: kept_as for here, kept_as in found.items() if kept_as}


def anchors(steps: Iterable[int], every: int, most: int) -> set[int]:
    """Step 0, and planned steps so far apart (`every` doubled as often as needed) that at most `most` are kept.

    When `most` is negative there is no room even for step 0.
    """
    if most < 0:
        return set()
    planned = [step for step in steps if step % every == 0]
    spacing = every
    while max(planned, default=0) // spacing > most:
        spacing *= 2
    return {step for step in planned if step % spacing == 0}


def given(session: SessionState) -> set[int]:
    """The step in whose bits a fork began: nothing of it can be computed again without that state."""
    return {session.training.begins} if session.fork else set()


def prunable(session: SessionState, *, handled: str = "") -> list[Checkpoint]:
    """Usable checkpoints that were read back (`handled` just now), have no role, and are not waited for by any role."""
    final = any(kept.id == handled and kept.written.reason == "final" for kept in session.training.checkpoints)
    kept_as, needed = roles(session), obligations(session, over=final or session.outcome is not None)
    found: dict[Place, Checkpoint] = {}
    unread = {place(kept) for kept in session.training.checkpoints if kept.stored is None and kept.id != handled}
    for kept in session.training.checkpoints:
        here = place(kept)
        if kept.usable and here not in kept_as and here not in needed and here not in unread:
            found[here] = kept
    return list(found.values())


def obligations(session: SessionState, *, over: bool = False) -> set[Place]:
    """Checkpoints that still have to be read: to judge, to export, to rewind to, to resume from.

    When training is over only the best and the last are waited for by judges, and those are kept anyway.
    """
    needed = (
        set() if over else {place(kept) for kept in session.training.checkpoints if _awaits_judgement(kept, session)}
    )
    names = [wish.checkpoint for _, wish in session.export_wishes]
    names += [which for _, _, which, _ in wanted_exports(session)]
    found = (exported(session, which) for which in names)
    needed |= {place(kept) for kept in found if kept}
    steps = [seen.rewind_to for _, seen in session.training.open_proposals() if seen.rewind_to is not None]
    steps += [session.training.claim.resumed_from] if session.training.claim and not over else []
    for step in steps:
        usable = [kept for kept in session.training.path_checkpoints() if kept.usable and kept.written.step <= step]
        needed |= {place(usable[-1])} if usable else set()
    return needed


def same_trajectory(ours: SessionState, theirs: SessionState) -> bool:
    """Whether two sessions may write the very same checkpoints: equal in all that bits depend on."""
    return all(ours.request.get(section) == theirs.request.get(section) for section in _TRAJECTORY)


def _awaits_judgement(kept: Checkpoint, session: SessionState) -> bool:
    failed = any((seen.role, seen.heard) == ("validator", kept.stored_id) for seen in session.failures)
    judged = kept.validated or failed or session.answers("validator", kept.stored_id)
    return kept.written.reason in JUDGED and not judged


def named(session: SessionState, which: str) -> Checkpoint | None:
    """The usable checkpoint of a name: best, last, final, or a step in digits; None where the name has none."""
    return session.training.checkpoint(which) if which in NAMES or which.isdecimal() else None


def exported(session: SessionState, which: str) -> Checkpoint | None:
    """The one that an export of this name is made from: the last where there is no best one."""
    return named(session, which) or (session.training.checkpoint("last") if which == "best" else None)


FOLDER = "kept"


def hold_blob(root: Path, blob: str, session: str) -> None:
    """Mark that a session keeps a blob; durable when it returns."""
    marks = root / FOLDER / blob
    with room_for(marks):
        while not (marks / session).exists():
            # The last holder may be taking the folder away at this very moment.
            with suppress(FileNotFoundError):
                make_directory(marks, mode_of(root))
                (marks / session).touch()
    # Another process may have made the folder and not yet brought it to disk.
    for folder in (marks, marks.parent, root):
        sync_directory(folder)


def release_blob(root: Path, blob: str, session: str) -> None:
    """Take the mark away; there may be none."""
    marks = root / FOLDER / blob
    (marks / session).unlink(missing_ok=True)
    with suppress(OSError):
        marks.rmdir()


def holders(root: Path, blob: str) -> list[str]:
    """The sessions that keep a blob."""
    marks = root / FOLDER / blob
    return sorted(mark.name for mark in marks.iterdir()) if marks.is_dir() else []
