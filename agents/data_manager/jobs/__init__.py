"""The data manager's job in a child: it prepares one dataset."""

from typing import Never

from contracts.data_manager import DatasetPrepared, DatasetRejected
from runtime.jobs.job import JobContext, job
from runtime.node.capabilities import PreparationOrder, PreparationProgress


@job(purpose="prepare", ahead=("agents.data_manager.jobs.prepare",))
def prepare_dataset(
    context: JobContext[PreparationProgress, Never], order: PreparationOrder
) -> DatasetPrepared | DatasetRejected | None:
    """Open the source, and unless its dataset is in the store read, check, split and write it."""
    from agents.data_manager.jobs.prepare import prepare

    return prepare(order, lambda done, total: context.tell(PreparationProgress(done, total)))
