"""The job that reads one checkpoint back: its bytes, its roots, its step; sound, it is held for its session."""

from dataclasses import dataclass
from pathlib import Path

from bus.blobs import DirectoryBlobs
from contracts.errors import NotVerified
from runtime.jobs.job import job
from runtime.log import retention


@dataclass(frozen=True)
class WrittenState:
    """What the log says of a checkpoint of a session, and the store that is to hold it."""

    blobs: Path
    session: str
    blob: str
    step: int
    state_root: str
    weights_digest: str


@job(purpose="audit")
def verify(written: WrittenState) -> int:
    """The size of the blob; raises `NotFound` or `NotVerified` with what is wrong with it."""
    blobs = DirectoryBlobs(written.blobs)
    # Marked as used first: a session that deletes the same bytes then leaves them in place.
    retention.hold_blob(blobs.root, written.blob, written.session)
    try:
        return _read_back(blobs, written)
    except BaseException:
        retention.release_blob(blobs.root, written.blob, written.session)
        raise


def _read_back(blobs: DirectoryBlobs, written: WrittenState) -> int:
    # The agent imports this module too, and does without torch.
    from runtime.engine import checkpoint

    data = blobs.get(written.blob)
    content = checkpoint.unpack(data, state_root=written.state_root)
    for name, value in (("step", content.step), ("weights_digest", content.weights_digest)):
        if value != (wanted := getattr(written, name)):
            message = f"the checkpoint has the {name} {value!r}, the log {wanted!r}"
            raise NotVerified(message, cure="Use an earlier checkpoint.")
    return len(data)
