"""What people say, through the front desk: the genesis of a session and the wishes for a running one.

`asked_by` is who was verified: `owner`, `client`, a person of the keyring (`person_ann`) or a built-in role. Before
people were in the keyring it was `client`, or what the body of a command said. Since version 2 a wish holds the command
as it was signed; None when it was not: the owner and clients sign nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from contracts.event import Event, Payload
from contracts.fork import Fork
from contracts.kinds import SESSION_KINDS
from contracts.roles import OPERATOR
from contracts.signed_command import SignedCommand, unsigned

if TYPE_CHECKING:
    KindName = str
else:
    KindName = Literal[SESSION_KINDS]
    """The name of a kind that this software knows; a genesis of any other is kept and shown, and never folded."""

RULES = 2
"""The newest rules of admission that this software knows, under which new sessions begin."""


def _no_fork(old: Payload) -> Payload:
    return old | {"fork": None}


def _first_rules(old: Payload) -> Payload:
    return old | {"rules": 1}


class SessionRequested(Event, lane=OPERATOR, wire="session.requested", upcasts=[_no_fork, _first_rules]):
    """The genesis: the resolved request, the keyring it stands on, and who asked.

    Since version 2 it may begin in the bits of another session. Since version 3 it names the rules by which every
    event of the session is admitted, so that what was admitted under older rules stays admitted.
    """

    kind: KindName
    request: dict[str, Any]
    keyring: str
    asked_by: str
    request_id: str | None = None
    parent: str | None = None
    fork: Fork | None = None
    rules: Annotated[int, Field(ge=1)]


class CancelRequested(
    Event, lane=OPERATOR, wire="cancel.requested", upcasts=[unsigned], says="{asked_by} wants it cancelled"
):
    """A person wants the session to end now."""

    asked_by: str
    reason: str = ""
    signed: SignedCommand | None = None


class PauseRequested(
    Event, lane=OPERATOR, wire="pause.requested", upcasts=[unsigned], says="{asked_by} wants it paused"
):
    """A person wants the session to wait; only a person resumes it."""

    asked_by: str
    signed: SignedCommand | None = None


class ResumeRequested(
    Event, lane=OPERATOR, wire="resume.requested", upcasts=[unsigned], says="{asked_by} wants it resumed"
):
    """A person wants a paused session to go on."""

    asked_by: str
    signed: SignedCommand | None = None


class ExportRequested(Event, lane=OPERATOR, wire="export.requested", upcasts=[unsigned]):
    """One more format of the model is wanted from a session that is still open."""

    asked_by: str
    format: str
    quantize: str = ""
    checkpoint: str = "best"
    signed: SignedCommand | None = None


class RedriveRequested(
    Event, lane=OPERATOR, wire="redrive.requested", upcasts=[unsigned], says="{asked_by} wants a failure tried again"
):
    """A recorded handler failure is to be tried once more."""

    asked_by: str
    failure: str
    signed: SignedCommand | None = None


class ProposalApproved(Event, lane=OPERATOR, wire="proposal.approved"):
    """A person wants a proposal that waits to take effect; one for another training names the `session` it became."""

    asked_by: str
    proposal: str
    session: str | None = None
    signed: SignedCommand | None = None


class ProposalRejected(Event, lane=OPERATOR, wire="proposal.rejected"):
    """A person does not want a proposal that waits."""

    asked_by: str
    proposal: str
    reason: str = ""
    signed: SignedCommand | None = None


WISHES = (
    CancelRequested,
    PauseRequested,
    ResumeRequested,
    ExportRequested,
    RedriveRequested,
    ProposalApproved,
    ProposalRejected,
)
"""The wishes for a session that is there: each says who asked."""
