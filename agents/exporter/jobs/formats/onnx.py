"""One ONNX file with everything inside, a named batch dimension, and nothing of the machine that wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch

from agents.exporter.jobs.formats import Answer, FileDetails, plain_of
from agents.exporter.jobs.quantise import quantised
from agents.exporter.jobs.refusal import Unexportable
from agents.exporter.jobs.trained import ExportModel, canonical

executable = True

OPSET = 20
_LARGEST = 1_900_000_000
_ABOUT = "stigmergy"


def write(trained: ExportModel, quantize: str, path: Path) -> FileDetails:
    """Write the graph, quantised if asked; the full-precision file is then beside it as PATH.plain."""
    proto = _exported(trained)
    details: dict[str, Any] = {"nodes": len(proto.graph.node)}
    if quantize:
        plain = plain_of(path)
        _save(proto, plain)
        proto, more = quantised(quantize, plain, trained)
        details |= more
    _strip(proto)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {_ABOUT: canonical(trained.about())})
    _check(proto, trained)
    _save(proto, path)
    emitted = _opset(proto)
    return FileDetails(emitted, details | {"ir_version": proto.ir_version, "opset": emitted})


def opened(path: Path, quantize: str) -> Answer:
    """A function from columns to the answers of the graph, run by onnxruntime on the CPU with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if quantize == "fp16":
        # On a CPU the most thorough level ends the process while it loads some half-precision models.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def ask(columns: Mapping[str, np.ndarray]) -> np.ndarray:
        answers: np.ndarray = session.run(None, {name: columns[name] for name in names})[0]
        return answers

    return ask


def _exported(trained: ExportModel) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    try:
        program = torch.onnx.export(
            trained.answering,
            trained.example(),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(tuple({0: batch} for _ in trained.inputs),),
            input_names=list(trained.inputs),
            output_names=[trained.output],
            external_data=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        cure = "Export safetensors instead; what torch tried is in the session's export.log."
        raise Unexportable("unsupported", f"torch cannot write this model as ONNX: {reason}", cure) from error
    proto: onnx.ModelProto = cast(torch.onnx.ONNXProgram, program).model_proto
    _strip(proto)
    return proto


def _strip(proto: onnx.ModelProto) -> None:
    """Forget source lines, paths and the names of modules: what is left is a function of model and libraries."""
    proto.doc_string = ""
    for graph in (proto.graph, *proto.functions):
        graph.doc_string = ""
        del graph.metadata_props[:]
        _strip_nodes(graph.node)
        for value in graph.value_info:
            del value.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def _strip_nodes(nodes: Any) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                _strip_nodes(graph.node)


def _check(proto: onnx.ModelProto, trained: ExportModel) -> None:
    """What torch and the quantiser made is what was asked for."""
    if proto.ByteSize() > _LARGEST:
        message = f"the model has {proto.ByteSize()} bytes, and one ONNX file holds {_LARGEST}."
        raise Unexportable("too-large", message, "Export safetensors or pt2.")
    onnx.checker.check_model(proto, full_check=True)
    if (emitted := _opset(proto)) < OPSET:
        raise Unexportable("opset", f"opset {OPSET} was asked for and {emitted} came out.", "Update torch.")
    ends = (*proto.graph.input, *proto.graph.output)
    if fixed := [one.name for one in ends if not one.type.tensor_type.shape.dim[0].dim_param]:
        message = f"the batch size of {', '.join(fixed)} is fixed in the graph."
        raise Unexportable("fixed-batch", message, "Let the model's code take no size from its input's first axis.")
    if [one.name for one in proto.graph.input] != list(trained.inputs):
        message = f"the graph asks for {[one.name for one in proto.graph.input]}, not {list(trained.inputs)}."
        raise Unexportable("inputs", message, "Let the model's `predict` use every column, or drop those it ignores.")


def _opset(proto: onnx.ModelProto) -> int:
    return next(int(one.version) for one in proto.opset_import if one.domain in ("", "ai.onnx"))


def _save(proto: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(proto.SerializeToString(deterministic=True))
