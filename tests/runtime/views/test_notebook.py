"""In a notebook's cell progress is replaced a few times a second, whatever happens, and trouble stays readable."""

from __future__ import annotations

from typing import Any

from runtime.views.notebook import SECONDS, TROUBLES, NotebookProgress

TIME = "2026-01-01T00:00:00.000000Z"


def line(name: str, lane: str = "trainer", **data: Any) -> dict[str, Any]:
    return {"seq": 1, "time": TIME, "lane": lane, "name": name, "understood": True, "data": data}


def test_a_long_training_is_drawn_as_often_as_time_allows_and_its_end_is_seen() -> None:
    drawn: list[tuple[str, str]] = []
    now = 0.0
    request = {"name": "<b>mine</b>", "training": {"epochs": 2}}
    with NotebookProgress(lambda html, text: drawn.append((html, text)), clock=lambda: now) as shown:
        shown.take(line("session.requested", "operator", kind="training", request=request, asked_by="me"))
        for step in range(10_000):
            now += SECONDS / 1000
            data = {"first": step, "last": step + 1, "losses": "AACAPw==", "segment": 1}
            shown.take(line("window.recorded", **data))
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
            failure = {"handler": "h", "error": f"error {number}", "role": "exporter", "cure": "", "attempts": 3}
            shown.take(line("handler.failed", "exporter", **failure))
    assert len(drawn[-1].splitlines()) == 1 + TROUBLES
    assert f"error {TROUBLES + 2}" in drawn[-1]
