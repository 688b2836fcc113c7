"""The words of the code: names that people import stay importable."""

from __future__ import annotations

import importlib

import pytest

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
        ResourcesAlerted ResourcesSummarised
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
def test_a_name_that_people_import_stays_importable(module: str) -> None:
    held = importlib.import_module(module)
    assert [name for name in IMPORTABLE[module].split() if not hasattr(held, name)] == []
