"""The lanes that events belong to: those of the built-in roles, of people, and of the two roles that admit keys.

A guest's lane is `guest_` and its name.
"""

CHECKPOINT_KEEPER = "checkpoint_keeper"
DATA_MANAGER = "data_manager"
DIAGNOSTICIAN = "diagnostician"
EXPORTER = "exporter"
HYPERPARAMETER_SPECIALIST = "hyperparameter_specialist"
LEDGER = "ledger"
RESOURCE_MONITOR = "resource_monitor"
TRAINER = "trainer"
VALIDATOR = "validator"

BUILT_IN = (
    DATA_MANAGER,
    TRAINER,
    CHECKPOINT_KEEPER,
    VALIDATOR,
    RESOURCE_MONITOR,
    DIAGNOSTICIAN,
    HYPERPARAMETER_SPECIALIST,
    EXPORTER,
    LEDGER,
)
"""The roles of `agents/`; the ledger keeps the books of the other eight."""

OPERATOR = "operator"
"""What people want, written down by the desk that they asked."""
DESK = "desk"
ROOT = "root"
GUEST = "guest_"
"""How the lanes of guests begin."""

ANYBODY = "*"
"""In place of lanes: every role may say it, guests included."""
