"""Makes one file in the session's scratch folder. It proves nothing and publishes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.exporter.jobs.formats import named
from agents.exporter.jobs.refusal import refusing
from agents.exporter.jobs.trained import load
from agents.exporter.plan import ExportOrder
from bus.blobs import digest_of
from contracts.errors import InvalidInput
from contracts.request.training import FORMATS, QUANTIZATIONS
from runtime.jobs.job import Job


@refusing
def main(job: Job) -> dict[str, Any]:
    """The opset and the details of the file WORK/FILENAME; companions are written beside it.

    It is written under the name that its order gives it, which some formats keep inside; a name from a log
    must be replaced by the caller's own before it comes here.
    """
    order, made = ExportOrder(**job.args["order"]), Path(job.args["work"]) / job.args["filename"]
    if order.format not in FORMATS:
        raise InvalidInput(f"{order.format!r} is no format.", cure=f"Known: {', '.join(FORMATS)}.")
    if order.quantize not in ("", *QUANTIZATIONS):
        raise InvalidInput(f"{order.quantize!r} is no quantisation.", cure=f"Known: {', '.join(QUANTIZATIONS)}.")
    format_ = named(order.format)
    path, trained = made.with_name(order.filename), load(job.args)
    written = format_.write(trained, order.quantize, path)
    path.replace(made)
    details = written.details | {"weights_digest": trained.checkpoint.weights_digest}
    for suffix, content in written.beside.items():
        made.with_name(f"{made.name}.{suffix}").write_bytes(content)
        details.setdefault("beside", {})[suffix] = digest_of(content)
    return {"opset": written.opset, "details": details}
