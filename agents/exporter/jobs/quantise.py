"""Smaller numbers in an ONNX graph: integers or half floats. Whether the answers are still good is judged elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from agents.exporter.jobs.refusal import Unexportable
from agents.exporter.jobs.trained import ExportModel, some_rows
from runtime.engine.ragged import apart

CALIBRATION_ROWS = 256
_BATCH = 32
_HEAVY = ("MatMul", "Gemm")
_INTEGER = ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearConv", "QGemm")


def quantised(how: str, plain: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph in `plain` with smaller numbers, and what was done to it; refused when nothing could be."""
    with tempfile.TemporaryDirectory(dir=plain.parent) as folder:
        proto, details = _WAYS[how](plain, Path(folder), trained)
    if not details["converted_nodes"]:
        message = f"no node of this model could be converted to {how}, so the file would be the plain one."
        raise Unexportable("nothing-quantised", message, "Export it without `quantize`.")
    return proto, details


def _int8(plain: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Unsigned weights beside unsigned activations: processors without VNNI add products of unsigned and signed bytes
    in 16 bits, which overflows silently and spoils a file that answers well elsewhere."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = folder / "ready.onnx"
    # Without it the quantiser meets shapes of the exporter's that contradict its own, and gives up.
    quant_pre_process(str(plain), str(ready), skip_symbolic_shape=False)
    convolves = any(node.op_type == "Conv" for node in onnx.load(ready).graph.node)
    # Dynamically quantised convolutions run several times slower than floats.
    return (_static if convolves else _dynamic)(ready, folder, trained)


def _dynamic(ready: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, Any]]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = folder / "made.onnx"
    quantize_dynamic(str(ready), str(made), weight_type=QuantType.QUInt8, op_types_to_quantize=list(_HEAVY))
    proto = onnx.load(made)
    converted = sum(node.op_type in _INTEGER for node in proto.graph.node)
    return proto, {"method": "dynamic", "converted_nodes": converted}


def _static(ready: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, Any]]:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    made = folder / "made.onnx"
    reader = _Calibration(trained)
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
    calibration = {"split": "train", "dataset": trained.dataset.root, "rows": reader.rows, "method": "minmax"}
    details = {"method": "static", "converted_nodes": _fed_by_integers(proto), "calibration": calibration}
    return proto, details | {"per_channel": True, "reduce_range": False}


def _fed_by_integers(proto: onnx.ModelProto) -> int:
    """Heavy nodes whose weights come out of a `DequantizeLinear`."""
    lifted = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return sum(node.op_type in ("Conv", *_HEAVY) and node.input[1] in lifted for node in proto.graph.node)


class _Calibration:
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
        batch = {name: one[self._next : self._next + _BATCH] for name, one in self._columns.items()}
        self._next += _BATCH
        return batch


def _fp16(plain: Path, folder: Path, trained: ExportModel) -> tuple[onnx.ModelProto, dict[str, Any]]:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(convert_float_to_float16(onnx.load(plain), keep_io_types=True))
    # The converter puts its casts at the end, where a checker does not accept them.
    model.topological_sort(is_deterministic=True)
    proto = model.model
    half = onnx.TensorProto.FLOAT16
    converted = sum(one.data_type == half for one in proto.graph.initializer)
    advice = "half floats make the file smaller; they are faster on GPUs and slower on most CPUs"
    return proto, {"method": "fp16", "converted_nodes": converted, "advice": advice}


_WAYS: Mapping[str, Callable[[Path, Path, ExportModel], tuple[onnx.ModelProto, dict[str, Any]]]] = {
    "int8": _int8,
    "fp16": _fp16,
}
