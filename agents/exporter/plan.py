"""Which files are to be made of which checkpoint, decided from the fold alone. Nothing is read or written here."""

from collections.abc import Mapping
from typing import Any

from contracts.exporter import ExportOrder, ExportRefused
from contracts.session import SessionState
from contracts.training import wanted_exports
from runtime.log import retention

FORMATS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("int8", "fp16"),
    "safetensors": (),
    "pt2": (),
    "torchscript": (),
}
"""Every format and the quantisations that it allows."""


def orders(session: SessionState) -> list[ExportOrder | ExportRefused]:
    """The exports that a trained session still owes, in the order asked; one that cannot be made is its refusal."""
    return [_order(session, form, quantize, which) for form, quantize, which, _ in wanted_exports(session)]


def order_of(request: Mapping[str, Any]) -> ExportOrder | ExportRefused:
    """The one file that a session of the kind `export` is about; its genesis names everything."""
    form, quantize = str(request.get("format", "")), str(request.get("quantize") or "")
    which = str(request.get("checkpoint", "best"))
    missing = [key for key in ("checkpoint_blob", "dataset", "request", "step") if request.get(key) is None]
    if refusal := _unknown(form, quantize, which):
        return refusal
    if missing:
        message = f"the export request does not say {', '.join(missing)}."
        return _refused(form, quantize, which, "invalid", message, "Ask with `swarm export SESSION`.")
    step, blob, dataset = int(request["step"]), str(request["checkpoint_blob"]), str(request["dataset"])
    return ExportOrder(
        format=form,
        quantize=quantize,
        wanted=which,
        step=step,
        blob=blob,
        state_root=None,
        dataset=dataset,
        request=dict(request["request"]),
    )


def _order(session: SessionState, form: str, quantize: str, which: str) -> ExportOrder | ExportRefused:
    if refusal := _unknown(form, quantize, which):
        return refusal
    kept = retention.exported(session, which)
    if kept is None:
        steps = ", ".join(str(usable.written.step) for usable in session.training.path_checkpoints() if usable.usable)
        cure = f"Kept steps: {steps}." if steps else "Train with checkpoints.keep_last of at least 1."
        message = f"there is no usable checkpoint {which!r}."
        return _refused(form, quantize, which, "no-checkpoint", message, cure)
    if session.training.dataset is None:
        message = "the session has no dataset to compare answers on."
        return _refused(form, quantize, which, "no-dataset", message, "")
    return ExportOrder(
        format=form,
        quantize=quantize,
        wanted=which,
        step=kept.written.step,
        blob=kept.written.blob,
        state_root=kept.written.state_root,
        dataset=session.training.dataset.root,
        request=session.request,
    )


def _unknown(form: str, quantize: str, which: str) -> ExportRefused | None:
    if form not in FORMATS:
        message, cure = f"{form!r} is no format that can be exported.", f"Known: {', '.join(FORMATS)}."
    elif quantize and quantize not in FORMATS[form]:
        message = f"{form} cannot be quantised to {quantize!r}."
        cure = f"Known for {form}: {', '.join(FORMATS[form])}." if FORMATS[form] else "Quantise the format onnx."
    else:
        return None
    return _refused(form, quantize, which, "unsupported", message, cure)


def _refused(form: str, quantize: str, which: str, code: str, message: str, cure: str) -> ExportRefused:
    about = {"format": form, "quantize": quantize, "checkpoint": which}
    return ExportRefused(**about, code=code, message=message, cure=cure)
