"""A trained model: its checkpoints by name, asked with rows."""

# Named here, so that a process without torch can have them run in a child.
INSPECT = "runtime.model.jobs:inspect"
PREDICT = "runtime.model.jobs:predict"
PROBE = "runtime.model.jobs:probe"
