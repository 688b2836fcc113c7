"""What an older version of an event means today is written down: an upcaster that says otherwise is noticed.

`python -m tests.contracts.test_lifted` adds what is missing; what stands there is never edited.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contracts import envelope
from contracts.event import events
from tests.contracts.make_goldens import GOLDENS, lines

GOLDEN = Path(__file__).with_name("lifted.json")


def lifted() -> dict[str, Any]:
    """The present payload of every golden of an older version."""
    found, kinds = {}, events()
    for path in sorted(GOLDENS.glob("*.jsonl")):
        wire = path.name.removesuffix(".jsonl")
        for version, line in lines(wire):
            if version < kinds[wire].version():
                _, event = envelope.read(line)
                found[f"{wire}/{version} as {event.schema_id}"] = json.loads(event.model_dump_json())
    return found


def test_every_older_event_is_lifted_to_what_it_was_lifted_to() -> None:
    written = json.loads(GOLDEN.read_text())
    found = lifted()
    assert len(found) >= 4
    assert found == {name: written.get(name) for name in found}


def test_an_old_outcome_asks_for_no_proof() -> None:
    (old,) = [payload for name, payload in lifted().items() if name.startswith("outcome.judged/1 ")]
    assert old["prove"] is False


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    GOLDEN.write_text(json.dumps(lifted() | known, indent=1, sort_keys=True) + "\n")
