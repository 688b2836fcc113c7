"""Figures as a table: rows, columns, and what a notebook shows of them; every library takes it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runtime.views.curves import SHOWN, MetricsTable

ROWS = [{"step": step, "loss": 1 / step} | ({"val<b>": 0.5} if step == 2 else {}) for step in range(1, 101)]


def test_a_table_is_read_by_rows_and_by_columns() -> None:
    table = MetricsTable(ROWS)
    assert isinstance(table, Sequence)
    assert list(table) == ROWS == table
    assert table.columns == ["step", "loss", "val<b>"]
    assert table["val<b>"][:3] == [None, 0.5, None]
    assert table[-1]["step"] == 100
    assert table[98:]["step"] == [99, 100]
    with pytest.raises(KeyError, match="there are step, loss"):
        table["los"]


def test_a_notebook_shows_the_beginning_and_the_end_and_nothing_that_it_would_obey() -> None:
    table = MetricsTable(ROWS)
    html, text = table._repr_html_(), table._repr_markdown_()
    assert (html.count("<tr>"), text.count("\n")) == (SHOWN + 2, SHOWN + 2)
    assert "val&lt;b&gt;" in html
    assert "<td>100</td>" in html
    assert MetricsTable([])._repr_markdown_() == "|  |\n|  |"
