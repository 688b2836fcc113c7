"""A place for each row, near rows of its class."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from contracts.errors import InvalidRequest, Problem
from contracts.request.loss import Contrastive, Embedding
from contracts.request.section import Section
from runtime.engine.aim import Aim, tasks
from runtime.engine.facts import Facts


@tasks.part("embedding")
class Places(Aim):
    """As many numbers as the loss is wide; only their direction counts."""

    loss: ClassVar[Section] = Contrastive(type="contrastive")

    def __init__(self, facts: Facts, loss: Section) -> None:
        super().__init__(facts, loss)
        if facts.task != "classification" or not isinstance(loss, Embedding):
            message = f"rows are put near rows of their class, and the target is for {facts.task}"
            raise InvalidRequest([Problem("loss.type", message, "Leave the section `loss` out.")])
        self.facts = replace(facts, outputs=loss.width)
