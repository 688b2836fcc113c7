"""A class for each row."""

from __future__ import annotations

from typing import ClassVar

from contracts.request.loss import CrossEntropy
from contracts.request.section import Section
from runtime.engine.aim import Aim, tasks


@tasks.part("classification")
class Classification(Aim):
    """One number per class; the largest is the answer."""

    loss: ClassVar[Section] = CrossEntropy(type="cross_entropy")
