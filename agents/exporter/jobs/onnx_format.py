"""Files of ONNX, and smaller numbers in their graphs: integers or half floats. Parity judges whether those are good."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch

from agents.exporter.jobs.formats import FileDetails, plain_of
from agents.exporter.jobs.parity import Ask
from agents.exporter.jobs.trained import ExportModel, Unexportable, canonical, some_rows
from runtime.engine.ragged import apart

OPSET = 20
CALIBRATION_ROWS = 256
_LARGEST = 1_900_000_000
_ABOUT = "stigmergy"
_BATCH = 32
_HEAVY = ("MatMul", "Gemm")
_INTEGER = ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearConv", "QGemm")


class Onnx:
    """One ONNX file with everything inside, a named batch dimension, and nothing of the machine that wrote it."""

    executable = True

    def write(self, trained: ExportModel, quantize: str, path: Path) -> FileDetails:
        """Write the graph, quantised if asked; the full-precision file is then beside it as PATH.plain."""
        proto = _exported(trained)
        details: dict[str, object] = {"nodes": len(proto.graph.node)}
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

    def opened(self, path: Path, quantize: str) -> Ask:
        """A function from columns to the answers of the graph, run by onnxruntime on the CPU with one thread."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if quantize == "fp16":
            # On a CPU the most thorough level ends the process while it loads some half-precision models.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [column.name for column in session.get_inputs()]

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
    if fixed := [end.name for end in ends if not end.type.tensor_type.shape.dim[0].dim_param]:
        message = f"the batch size of {', '.join(fixed)} is fixed in the graph."
        raise Unexportable("fixed-batch", message, "Let the model's code take no size from its input's first axis.")
    if (inputs := [column.name for column in proto.graph.input]) != list(trained.inputs):
        message = f"the graph asks for {inputs}, not {list(trained.inputs)}."
        raise Unexportable("inputs", message, "Let the model's `predict` use every column, or drop those it ignores.")


def _opset(proto: onnx.ModelProto) -> int:
    return next(int(opset.version) for opset in proto.opset_import if opset.domain in ("", "ai.onnx"))


def _save(proto: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(proto.SerializeToString(deterministic=True))


def quantised(how: str, plain: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, object]]:
    """The graph in `plain` with smaller numbers, and what was done to it; refused when nothing could be."""
    with tempfile.TemporaryDirectory(dir=plain.parent) as folder:
        proto, details = _WAYS[how](plain, Path(folder), trained)
    if not details["converted_nodes"]:
        message = f"no node of this model could be converted to {how}, so the file would be the plain one."
        raise Unexportable("nothing-quantised", message, "Export it without `quantize`.")
    return proto, details


def _int8(plain: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, object]]:
    """Unsigned weights beside unsigned activations: processors without VNNI add products of unsigned and signed bytes
    in 16 bits, which overflows silently and spoils a file that answers well elsewhere."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = folder / "ready.onnx"
    # Without it the quantiser meets shapes of the exporter's that contradict its own, and gives up.
    quant_pre_process(str(plain), str(ready), skip_symbolic_shape=False)
    convolves = any(node.op_type == "Conv" for node in onnx.load(ready).graph.node)
    # Dynamically quantised convolutions run several times slower than floats.
    return (_static if convolves else _dynamic)(ready, folder, trained)


def _dynamic(ready: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, object]]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = folder / "made.onnx"
    quantize_dynamic(str(ready), str(made), weight_type=QuantType.QUInt8, op_types_to_quantize=list(_HEAVY))
    proto = onnx.load(made)
    converted = sum(node.op_type in _INTEGER for node in proto.graph.node)
    return proto, {"method": "dynamic", "converted_nodes": converted}


def _static(ready: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, object]]:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    made = folder / "made.onnx"
    reader = _CalibrationReader(trained)
    quantize_static(
        str(ready),
        str(made),
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv", *_HEAVY],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        calibrate_method=CalibrationMethod.MinMax,
        calibration_providers=["CPUExecutionProvider"],
    )
    proto = onnx.load(made)
    # Heavy nodes whose weights come out of a `DequantizeLinear`.
    lifted = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    converted = sum(node.op_type in ("Conv", *_HEAVY) and node.input[1] in lifted for node in proto.graph.node)
    calibration = {"split": "train", "dataset": trained.dataset.root, "rows": reader.rows, "method": "minmax"}
    details = {"method": "static", "converted_nodes": converted, "calibration": calibration}
    return proto, details | {"per_channel": True, "reduce_range": False}


class _CalibrationReader:
    """Evenly spaced training rows in a fixed order, batch by batch: the same dataset gives the same file."""

    def __init__(self, trained: ExportModel) -> None:
        columns = apart(some_rows(trained.dataset, "train", CALIBRATION_ROWS))
        self._columns = {name: columns[name] for name in trained.inputs}
        self.rows = len(columns[trained.inputs[0]])
        self._next = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; None at the end."""
        if self._next >= self.rows:
            return None
        batch = {name: values[self._next : self._next + _BATCH] for name, values in self._columns.items()}
        self._next += _BATCH
        return batch


def _fp16(plain: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, object]]:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(convert_float_to_float16(onnx.load(plain), keep_io_types=True))
    # The converter puts its casts at the end, where a checker does not accept them.
    model.topological_sort(is_deterministic=True)
    proto = model.model
    half = onnx.TensorProto.FLOAT16
    converted = sum(weights.data_type == half for weights in proto.graph.initializer)
    advice = "half floats make the file smaller; they are faster on GPUs and slower on most CPUs"
    return proto, {"method": "fp16", "converted_nodes": converted, "advice": advice}


_WAYS: Mapping[str, Callable[[Path, Path, ExportModel], tuple[onnx.ModelProto, dict[str, object]]]] = {
    "int8": _int8,
    "fp16": _fp16,
}
