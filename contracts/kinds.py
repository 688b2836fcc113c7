"""Every kind of session that this software knows, by its name in the genesis."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.audit import AUDIT
from contracts.diagnostician import PROOF
from contracts.exporter import EXPORT
from contracts.hyperparameter_specialist import SEARCH
from contracts.kind import Kind
from contracts.training import TRAINING, TRIAL

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (TRAINING, SEARCH, TRIAL, EXPORT, AUDIT, PROOF)}
