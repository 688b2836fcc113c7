"""The words of the code: a class name has one meaning, values are no events, and names that people import stay."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

IMPORTABLE = {
    "stigmergy": """
        Agent Case Event Exact Group Memory Mover Ragged Say Session Swarm Workload every load
        metrics on train
    """,
    "runtime.engine.workload": """
        Batch Draw Facts Group Memory Metric Mover Ragged Rows Workload find options_of register
    """,
    "contracts.audit": """
        Audit Holder
    """,
    "contracts.checkpoint_keeper": """
        CheckpointCorrupt CheckpointPromoted CheckpointPruned CheckpointStored
    """,
    "contracts.common": """
        ChildEnded HandlerFailed signal_name
    """,
    "contracts.data_manager": """
        DatasetPrepared DatasetRejected Finding Origins
    """,
    "contracts.diagnostician": """
        DiagnosisReached InterventionProposed InterventionProven OutcomeJudged ProblemDiagnosed
        ProofFailed ProofForked ProofRequested
    """,
    "contracts.envelope": """
        Envelope Fact Spelling read read_untyped timestamp write
    """,
    "contracts.event": """
        Event Exact Unknown Value pack pack64 split_schema unpack unpack64
    """,
    "contracts.exporter": """
        ExportRefused ExportRepeated ModelBenchmarked ModelExported
    """,
    "contracts.fork": """
        Evaluated Fork Rows
    """,
    "contracts.hyperparameter_specialist": """
        LearningRateSuggested SearchCancelled SearchCompleted SearchFailed TrialFinished
        TrialStarted
    """,
    "contracts.keyring": """
        Key KeyAdmitted KeyRevoked KeyRotated Keyring KeyringOpened advance fingerprint key_id
        keyring_of keyring_session objection
    """,
    "contracts.ledger": """
        DutyWaived LedgerCheckpointed SessionSealed VoidsListed
    """,
    "contracts.operator": """
        CancelRequested ExportRequested PauseRequested RedriveRequested ResumeRequested
        SessionRequested
    """,
    "contracts.resource_monitor": """
        AdviceJudged ResourcesAdvised ResourcesAlerted ResourcesMeasured ResourcesSummarised
    """,
    "contracts.session": """
        Checkpoint Segment Session advance counts
    """,
    "contracts.trainer": """
        AttemptEnded AuditCompleted AuditDeclined AuditFailed AuditPlanned BirthAudited
        CheckpointRefused CheckpointWritten ControlEvaluated DivergenceFound InterventionApplied
        InterventionDeclined JudgementWaived Layer SpanPlanned SpanRepeated SpanTaken
        TrainingCancelled TrainingClaimed TrainingCompleted TrainingFailed TrainingPaused
        TrainingResumed WindowRecorded WindowsReproduced computed_at evidence
    """,
    "contracts.validator": """
        CheckpointValidated ValidationFailed
    """,
}
"""By module: every name that guests, workloads and readers of logs may have imported since the first release."""


@pytest.mark.parametrize("module", IMPORTABLE)
def test_names_that_people_import_stay_importable(module: str) -> None:
    held = importlib.import_module(module)
    assert [name for name in IMPORTABLE[module].split() if not hasattr(held, name)] == []


ROOMS = ("contracts", "bus", "runtime", "agents")
PARTICIPLE = re.compile(
    r"(?:ed|en|Said|Made|Told|Kept|Felt|Begun|Found|Held|Meant|Read|Sought|Left|Spent|Drawn|Built|Rebuilt)$"
)
NOUNS = {"Children", "Feed"}
"""Nouns that end like a participle."""

STANDS_ALONE = "runtime/bundle/verify_bundle.py"
"""It travels in every bundle and imports nothing of ours, so it defines for itself what it shares with the rest."""

VALUES_LIKE_EVENTS = {
    "Evaluated": "its name stands in the schema of `session.requested`, whose bytes are stored in bundles",
    "SpanPlanned": "its name stands in the schema of `audit.planned`, whose bytes are stored in bundles",
    "Ragged": "the adjective of the textbook, and the name under which workloads import it",
}


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class of the product with the file that defines it, wherever in the file that is."""
    for path in [
        ROOT / "stigmergy" / "__init__.py",
        *(file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))),
    ]:
        name = path.relative_to(ROOT).as_posix()
        if name != STANDS_ALONE:
            yield from (
                (name, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
            )


def is_event_or_error(node: ast.ClassDef) -> bool:
    """Whether a class is an event (it has a wire name) or an error, which may be told as something that happened."""
    bases = " ".join(map(ast.unparse, node.bases))
    return any(word.arg == "wire" for word in node.keywords) or any(
        word in bases for word in ("Event", "Error", "Exception")
    )


def test_every_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path, node in classes():
        places.setdefault(node.name.strip("_"), []).append(path)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_value_is_named_like_an_event() -> None:
    options = ("contracts/errors.py", "contracts/request/")  # errors, and sections named by the words of requests
    found = {
        node.name.strip("_")
        for path, node in classes()
        if not path.startswith(options) and not is_event_or_error(node) and PARTICIPLE.search(node.name)
    }
    assert found == NOUNS | set(VALUES_LIKE_EVENTS)
