"""Makes one file in the session's scratch folder. It proves nothing and publishes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.exporter.jobs.formats import named
from agents.exporter.jobs.refusal import refusing
from agents.exporter.jobs.trained import load
from bus.blobs import digest_of
from runtime.processes.job import Job


@refusing
def main(job: Job) -> dict[str, Any]:
    """The opset and the details of the file WORK/FILENAME; companions stand beside it."""
    order, path = job.args["order"], Path(job.args["work"]) / job.args["filename"]
    trained = load(job.args)
    written = named(order["format"]).write(trained, order["quantize"], path)
    details = written.details | {"weights_digest": trained.checkpoint.weights_digest}
    for suffix, content in written.beside.items():
        path.with_name(f"{path.name}.{suffix}").write_bytes(content)
        details.setdefault("beside", {})[suffix] = digest_of(content)
    return {"opset": written.opset, "details": details}
