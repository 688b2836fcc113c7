"""A trained model: its checkpoints by name, asked with rows."""

# Named here, so that a process without torch can have them run in a child.
INSPECT = "runtime.model.reading:inspect"
PREDICT = "runtime.model.reading:predict"
PROBE = "runtime.model.probe:main"
