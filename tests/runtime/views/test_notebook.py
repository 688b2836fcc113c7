"""In a notebook's cell progress is replaced a few times a second, whatever happens, and trouble stays readable."""

from __future__ import annotations

from contracts.common import HandlerFailed
from contracts.trainer import WindowRecorded
from runtime.views.notebook import SECONDS, TROUBLES, NotebookProgress
from tests.contracts.told import DIGEST, line, requested

WINDOW = WindowRecorded(
    segment=1, first=0, last=1, losses="AACAPw==", gradient_norm=1.0, learning_rate=0.1, index_digest=DIGEST,
    weights_digest=DIGEST, finite=True, layer_names=[], layer_figures="",
)  # fmt: skip


def test_a_long_training_is_drawn_as_often_as_time_allows_and_its_end_is_seen() -> None:
    drawn: list[tuple[str, str]] = []
    now, window = 0.0, line(WINDOW)
    request = {"name": "<b>mine</b>", "training": {"epochs": 2}}
    with NotebookProgress(lambda html, text: drawn.append((html, text)), clock=lambda: now) as shown:
        shown.take(line(requested(request), "operator"))
        for step in range(10_000):
            now += SECONDS / 1000
            shown.take({**window, "data": {**window["data"], "first": step, "last": step + 1}})
    assert 10 <= len(drawn) <= 12
    html, text = drawn[-1]
    assert "step 10000/?" in html
    assert "loss 1" in text
    assert "&lt;b&gt;mine" in html
    assert "<b>mine" not in html


def test_trouble_stays_in_the_cell_and_does_not_fill_it() -> None:
    drawn: list[str] = []
    with NotebookProgress(lambda _, text: drawn.append(text), clock=lambda: 0.0) as shown:
        for number in range(TROUBLES + 3):
            failed = HandlerFailed(role="exporter", handler="h", heard="x", error=f"error {number}", attempts=3)
            shown.take(line(failed, "exporter"))
    assert len(drawn[-1].splitlines()) == 1 + TROUBLES
    assert f"error {TROUBLES + 2}" in drawn[-1]
