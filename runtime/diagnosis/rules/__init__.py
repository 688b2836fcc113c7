"""The rules by what they look at, in the order in which they are asked: what explains most comes first."""

import importlib

for stage in ("inputs", "numbers", "layers", "progress", "generalisation", "resources"):
    importlib.import_module(f"{__name__}.{stage}")
