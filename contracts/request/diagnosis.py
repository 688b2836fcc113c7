"""Whether what the diagnostician finds is put right without asking."""

from __future__ import annotations

from contracts.request.section import Section


class Diagnosis(Section):
    """With `auto_fix` the rules' proposals take effect, each at a step that follows from its evidence.

    With `prove` every intervention is tried against going on without it, by two forks from the same bits.
    """

    auto_fix: bool = True
    prove: bool = False
