"""A session's state at any step, computed again from the nearest checkpoint, every window checked on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts.errors import InvalidInput, NotVerified, Refused
from runtime.jobs.children import Children
from runtime.replay.bench import AuditRunner
from runtime.replay.docket import AuditOptions
from runtime.replay.judged import sentence
from runtime.replay.material import AuditSubject
from runtime.replay.spans import course, nearest

RESTAGE = "runtime.replay.stepwise:restage"
REBUILD = "runtime.replay.stepwise:rebuild"


async def rebuilt(
    material: AuditSubject, step: int, out: Path, children: Children, *, trust_code: bool
) -> dict[str, Any]:
    """Write the weights after `step` attempts on the path to a safetensors file; `NotVerified` at a divergence.

    `out` is absolute. `Refused` when machine, code or data are not those of the claim: then the bits would be others.
    """
    about = {"step": step, "out": str(out), "session": material.session.id}
    found = await computed(material, REBUILD, about, children, step=step, trust_code=trust_code)
    told = {"weights": str(out), "weights_digest": found["weights_digest"], "tensors": found["tensors"]}
    return told | {"from_step": found["from_step"]}


async def computed(
    material: AuditSubject,
    function: str,
    about: Mapping[str, Any],
    children: Children,
    *,
    step: int,
    segment: int | None = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """The answer of a job about a step of the path, or of a segment's line, on the span that leads there; as above."""
    history = material.kept.history
    spans = course(history.facts, history.state, material.blobs.has).spans
    span = nearest(spans, step, history.state.segments, segment)
    if span is None:
        raise InvalidInput(
            f"session {history.id} did not reach step {step}; it stands at {history.state.step}.",
            cure=f"Choose a step from {history.state.begins} to {history.state.step}.",
            path="--step",
        )
    material.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="replay-", dir=material.work) as folder:
        bench = AuditRunner(
            material, AuditOptions("full", trust_code=trust_code), children, Path(folder), lambda _: None
        )
        if differing := await bench.compare():
            raise Refused(f"these bits cannot be computed here: {', '.join(differing[:5])}.", cure=_cure(differing))
        args = material.arguments(span, bench.folder) | dict(about)
        found = await bench.jobs.compared(function, args, material.spec(span))
    if found["divergence"]:
        message = f"the log does not lead to step {step}: {sentence(found['divergence'])}."
        raise NotVerified(message, cure=f"Find the place: swarm audit {history.id} --mode bisect")
    return found | {"from_step": span.begins}


def _cure(differing: list[str]) -> str:
    if any("trust-code" in one for one in differing):
        return "Give --trust-code if you trust the workload that came with the session."
    return "Do it where the session was trained."
