"""The seed of every draw, and whether bits must repeat."""

from __future__ import annotations

from pydantic import Field

from contracts.request.section import Section, Whole


class Reproducibility(Section):
    """`deterministic: false` chooses the profile `fast`, of which audits say not-comparable."""

    seed: Whole = Field(42, ge=0, lt=2**63)
    deterministic: bool = True
