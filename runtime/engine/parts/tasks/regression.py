"""A number for each row."""

from __future__ import annotations

from typing import ClassVar

from contracts.request.loss import Mse
from contracts.request.section import Section
from runtime.engine.aim import Aim, tasks


@tasks.part("regression")
class Regression(Aim):
    """One number, in the target's own units."""

    loss: ClassVar[Section] = Mse(type="mse")
