"""Whether what the diagnostician finds is put right without asking."""

from __future__ import annotations

from contracts.request.section import Section


class Diagnosis(Section):
    """With `auto_fix` the rules' proposals take effect, each at a step that follows from its evidence."""

    auto_fix: bool = True
