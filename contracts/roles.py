"""Every role with its lanes, known before anything is read. Imports nothing.

Rights and accounts on the server, who signs, who is run by a host, which agents wake whom and the AsyncAPI document all
follow from `ROLES`. A lane of a guest is `guest_` and its name.
"""

from dataclasses import dataclass
from typing import Literal

CHECKPOINT_KEEPER = "checkpoint_keeper"
DATA_MANAGER = "data_manager"
DIAGNOSTICIAN = "diagnostician"
EXPORTER = "exporter"
HYPERPARAMETER_SPECIALIST = "hyperparameter_specialist"
LEDGER = "ledger"
RESOURCE_MONITOR = "resource_monitor"
TRAINER = "trainer"
VALIDATOR = "validator"

HOST = "host"
ADMIN = "admin"
DESK = "desk"
OPERATOR = "operator"
"""What people want, written down by the desk that they asked."""
KEYRING = "keyring"
ROOT = "root"
GUEST = "guest_"
"""How the lanes of guests begin."""

ANYBODY = "*"
"""In place of lanes: every role may say it, guests included."""


Right = Literal["ask", "decide", "administer"]
"""What somebody may do: `ask` is to read and to have sessions made, `decide` to change the course of a session, and
`administer` to say who may take part."""


@dataclass(frozen=True, slots=True)
class Role:
    """A built-in identity of the bus, and what it may do there; everything else is denied to it."""

    name: str
    lanes: tuple[str, ...] = ()
    """The lanes in which it speaks."""
    agent: bool = True
    """Whether `agents/NAME` is its package: every host runs it unless told otherwise."""
    signs: bool = True
    """Whether the keyring has a key of it, by which its events are signed."""
    asks: tuple[Right, ...] = ()
    """By which rights it may ask the desk: to have sessions of its own made, and to end them."""
    exclusive: bool = False
    """Whether its lanes have one writer at a time, the holder of the newest claim; others may have several."""


def _agent(name: str, *, asks: tuple[Right, ...] = (), exclusive: bool = False) -> Role:
    return Role(name, (name,), asks=asks, exclusive=exclusive)


ROLES = (
    Role(HOST, (HOST,), agent=False, signs=False),
    _agent(DATA_MANAGER),
    _agent(TRAINER, exclusive=True),
    _agent(CHECKPOINT_KEEPER),
    _agent(VALIDATOR),
    _agent(RESOURCE_MONITOR),
    _agent(DIAGNOSTICIAN, asks=("ask", "decide")),
    _agent(HYPERPARAMETER_SPECIALIST, asks=("ask", "decide")),
    _agent(EXPORTER),
    _agent(LEDGER),
    Role(DESK, (DESK, OPERATOR, KEYRING, ROOT), agent=False),
    Role(ADMIN, agent=False, signs=False),
)
"""In the order in which the server's configuration lists them."""

BUILT_IN = tuple(role.name for role in ROLES if role.agent)
"""The roles of `agents/`; the ledger keeps the books of the others."""

SIGNING = tuple(role.name for role in ROLES if role.signs)
"""The roles that sign, each with a key of its own; the desk signs the operator's lane."""

EXCLUSIVE = tuple(lane for role in ROLES if role.exclusive for lane in role.lanes)
