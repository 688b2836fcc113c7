"""The weights of a session at any step, computed again from the nearest checkpoint, every window checked on the way."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts.errors import InvalidInput, NotVerified, Refused
from runtime.audit.bench import Bench
from runtime.audit.docket import Asked
from runtime.audit.judged import sentence
from runtime.audit.material import Material
from runtime.audit.spans import course, nearest
from runtime.children import Children


async def rebuilt(material: Material, step: int, out: Path, children: Children, *, trust_code: bool) -> dict[str, Any]:
    """Write the weights after `step` attempts on the path to a safetensors file; `NotVerified` at a divergence.

    `out` is absolute. `Refused` when machine, code or data are not those of the claim: then the bits would be others.
    """
    history = material.kept.history
    span = nearest(course(history.facts, history.state, material.blobs.has).spans, step)
    if span is None:
        raise InvalidInput(
            f"session {history.id} did not reach step {step}; it stands at {history.state.step}.",
            cure=f"Choose a step up to {history.state.step}.",
            path="--step",
        )
    material.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="replay-", dir=material.work) as folder:
        bench = Bench(material, Asked("full", trust_code=trust_code), children, Path(folder), lambda _: None)
        if differing := await bench.compare():
            raise Refused(f"these bits cannot be computed here: {', '.join(differing[:5])}.", cure=_cure(differing))
        args = material.arguments(span, bench.folder) | {"step": step, "out": str(out), "session": history.id}
        found = await bench.jobs.run("runtime.audit.stepwise:rebuild", args)
    if found["divergence"]:
        message = f"the log does not lead to step {step}: {sentence(found['divergence'])}."
        raise NotVerified(message, cure=f"Find the place: swarm audit {history.id} --mode bisect")
    about = {"weights": str(out), "weights_digest": found["weights_digest"], "tensors": found["tensors"]}
    return about | {"from_step": span.begins}


def _cure(differing: list[str]) -> str:
    if any("trust-code" in one for one in differing):
        return "Give --trust-code if you trust the workload that came with the session."
    return "Do it where the session was trained."
