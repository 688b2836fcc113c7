"""What torch and onnx import on the first graph that they write: imported once, before any job is forked.

It takes 2.7 s of processor time. Nothing here may start a thread, as onnxruntime does: no process forks with two.
"""

import importlib
from contextlib import suppress

_ON_THE_FIRST_GRAPH = (
    "networkx",
    "onnx",
    "onnxscript.function_libs.torch_lib.ops",
    "onnxscript.optimizer",
    "onnxscript.rewriter.onnx_fusions",
    "sympy.tensor.tensor",
    "torch._dynamo",
    "torch._export.passes",
    "torch._functorch.aot_autograd",
    "torch._inductor.codecache",
    "torch.export._trace",
    "torch.export.pt2_archive._package",
    "torch.fx.passes._tensorify_python_scalars",
    "torch.onnx._internal.exporter._compat",
    "torch.onnx._internal.exporter._core",
    "torch.onnx._internal.exporter._torchlib.ops",
)

for _name in _ON_THE_FIRST_GRAPH:
    # Another version of torch may keep them elsewhere; then the jobs import what it needs.
    with suppress(ImportError):
        importlib.import_module(_name)
