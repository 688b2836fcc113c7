"""Every block in every medium: harmless, bounded, the same bytes again; and what is not drawn is told."""

from __future__ import annotations

import base64
import math
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from itertools import chain

import pytest

from runtime.views import html, markdown, svg, terminal
from runtime.views.blocks import (
    Bar,
    Block,
    Curves,
    HeatMap,
    KeyFigure,
    KeyFigures,
    Mark,
    Page,
    PageColumn,
    PageSection,
    PageTable,
    Phrase,
    Pictures,
    Series,
    Text,
    Timeline,
    walk,
)
from runtime.views.plot import Scale, thinned

HOSTILE = "x\x1b[2K\x07\x9b31m\u202egnp\r\n# h\n|`*<script>alert(1)</script>&\"'](http://e)![i](http://e)\ufffe\x00"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
RENDERERS: dict[str, Callable[[Page], str]] = {
    "terminal": lambda page: terminal.render(page, 80, title=True),
    "markdown": markdown.render,
    "html": html.render,
}


def page_of(*blocks: Block) -> Page:
    return Page("A page", "about blocks", blocks)


def page_with(text: str, series: Series | None = None, rows: int = 2) -> Page:
    """One of each block, every text of which is this one."""
    line = series or Series(text, range(5), [4.0, 2.0, math.nan, 1.0, math.inf])
    marks = (Mark(1, text, "warn"),)
    columns = (PageColumn(text), PageColumn(text, "number", text), PageColumn(text, "code"))
    return Page(
        text,
        text,
        (
            KeyFigures(
                (KeyFigure(text, Phrase(text, "good"), text, text), KeyFigure(text, 1.5, kind="number")), large=True
            ),
            KeyFigures((KeyFigure(text, text), KeyFigure(text, 3_000_000, kind="bytes"))),
            Text(text, "bad"),
            Text(text, code=True),
            PageTable(columns, ((text, 0.5, text),) * rows, text),
            Curves(text, (line,), text, marks),
            Timeline(text, (Bar(text, 0.0, 2.0, text), Bar("other", 1.0, 3.0, text, "warn")), marks, text),
            Pictures((HeatMap(text, (text,), (text, text), ((1.0, None),), text, text, text),)),
            Pictures((HeatMap(text, (text,) * 30, (text,) * 30, ((1.0,) * 30,) * 30, text, text, text),)),
            PageSection(text, (Text(text),), folded=True),
        ),
    )


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


@pytest.mark.parametrize("name", RENDERERS)
def test_a_page_is_the_same_bytes_each_time(name: str) -> None:
    assert RENDERERS[name](page_with("loss")) == RENDERERS[name](page_with("loss"))


@pytest.mark.parametrize("name", RENDERERS)
def test_what_strangers_wrote_steers_no_terminal(name: str) -> None:
    assert not OBEYED.search(RENDERERS[name](page_with(HOSTILE)))


def test_what_strangers_wrote_is_text_in_a_file_of_html_and_nothing_comes_from_elsewhere() -> None:
    tree = parsed(html.render(page_with(HOSTILE)))
    assert {element.tag for element in tree.iter()}.isdisjoint({"script", "link", "iframe", "img", "a"})
    assert any("<script>alert(1)</script>&\"'" in (element.text or "") for element in tree.iter("p"))
    for element in tree.iter():
        for name, value in element.items():
            assert not name.startswith("on")
            assert name not in ("src", "href") or value.startswith("data:image/png;base64,")
            assert "url(" not in value
    sheet = "".join(element.text or "" for element in tree.iter("style"))
    assert "url(" not in sheet
    assert "@import" not in sheet


def test_a_file_of_html_says_what_its_pictures_show_and_names_the_heads_of_its_tables() -> None:
    tree = parsed(html.render(page_with("loss")))
    assert all(drawing[0].tag == "title" and drawing.get("role") == "img" for drawing in tree.iter("svg"))
    assert all(head.get("scope") in ("col", "row") for head in tree.iter("th"))
    assert tree.get("lang") == "en"
    policy = next(meta.get("content") for meta in tree.iter("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_what_strangers_wrote_makes_no_markup_in_markdown() -> None:
    whole = markdown.render(page_with(HOSTILE))
    # Lines of code hold what they hold.
    text = "\n".join(line for line in whole.splitlines() if not line.startswith("    "))
    assert not re.search(r"(?<!\\)\]\(|<script|(?<!\\)`\*", text)
    assert "\n# h" not in text
    cells = [re.findall(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("| ") and "x" in line]
    assert {len(bars) for bars in cells} <= {3, 4, 5, 8}
    assert markdown.render(page_of(Text("# no heading"), Text("1. no list"), Text("~~~"))).count("\\") == 3


TOTAL = 12_345


@pytest.mark.parametrize("name", RENDERERS)
def test_curves_are_not_thinned_without_saying_so(name: str) -> None:
    few, many = (Series("loss", range(count), [1.0 + at % 7 for at in range(count)]) for count in (30, TOTAL))
    told = re.compile(r"every [\d,]+ of 12,345 points|of [\d,]+ of 12,345 points")
    assert told.search(RENDERERS[name](page_of(Curves("Loss", (many,)))))
    assert "every" not in RENDERERS[name](page_of(Curves("Loss", (few,))))


def test_no_peak_is_lost_where_points_are_left_out() -> None:
    values = [1.0] * TOTAL
    values[7000], values[9000] = 99.0, -99.0
    line = thinned(Series("loss", range(TOTAL), values), 200)
    assert {(7000.0, 99.0), (9000.0, -99.0)} <= set(line.points)
    assert len(line.points) <= 200 + 2
    assert line.points == tuple(sorted(line.points))


@pytest.mark.parametrize(
    "values",
    [[], [1.0], [math.nan] * 3, [math.inf, 1.0, -math.inf], [0.0, 0.0], [1e308, -1e308, 1e-320], [1e-310, 1e300]],
)
@pytest.mark.parametrize("scale", ["linear", "log", "auto"])
def test_curves_of_any_values_are_drawn_with_finite_numbers_alone(values: list[float], scale: str) -> None:
    curves = Curves("Loss", (Series("loss", range(len(values)), values),), y_scale=scale)  # type: ignore[arg-type]
    for render in RENDERERS.values():
        render(page_of(curves))
    drawing = svg.picture_of(curves).decode()
    ET.fromstring(drawing)
    assert not re.search(r'"[^"]*\b(nan|inf)\b', drawing)


@pytest.mark.parametrize("name", RENDERERS)
def test_a_page_is_bounded_whatever_its_blocks_hold(name: str) -> None:
    count = 200_000
    text = RENDERERS[name](
        page_with("w" * 100_000, Series("loss", range(count), [at % 977 / 977 for at in range(count)]), 5000)
    )
    assert len(text) < 1_200_000
    assert "more characters)" in text
    assert "of 5,000 rows are left out here" in text


def test_figures_stand_at_the_right_with_their_units() -> None:
    columns = (
        PageColumn("name"),
        PageColumn("time", "number", "ms"),
        PageColumn("size", "bytes"),
        PageColumn("blob", "code"),
    )
    page = page_of(PageTable(columns, (("a", 1.5, 2_500_000, "ff"), ("b", 12.25, 10, "00"))))
    lines = terminal.render(page).splitlines()
    assert lines == ["name  time (ms)    size  blob", "a           1.5  2.5 MB  ff", "b         12.25    10 B  00"]
    assert (
        "| name | time (ms) | size | blob |\n| --- | ---: | ---: | --- |\n| a | 1.5 | 2.5 MB | `ff` |"
        in markdown.render(page)
    )
    assert '<td class="r">2.5 MB</td><td><code>ff</code></td>' in html.render(page)


def test_lines_are_no_wider_than_the_terminal_and_what_is_copied_stays_whole() -> None:
    digest = "0123456789abcdef" * 4
    words = "many words " * 30
    page = page_of(
        Text(words),
        KeyFigures((KeyFigure("note", words), KeyFigure("root", digest))),
        PageTable((PageColumn("a"), PageColumn("b")), (("x", words),)),
    )
    lines = terminal.render(page, 60).splitlines()
    assert all(len(line) <= 60 for line in lines if digest not in line)
    assert any(digest in line for line in lines)
    assert terminal.columns("学習é\u0301") == 5


def test_colours_are_asked_for_by_tone_and_text_is_harmless_before() -> None:
    seen: list[tuple[str, str]] = []

    def paint(text: str, tone: str) -> str:
        seen.append((text, tone))
        return text

    terminal.render(page_with(HOSTILE), 80, paint, title=True)
    assert {"strong", "faint", "good", "bad", "warn"} <= {tone for _, tone in seen}
    assert not OBEYED.search("".join(text for text, _ in seen))


def test_a_large_heat_map_is_a_picture_of_its_values() -> None:
    heat = HeatMap("Layers", ("a",) * 30, ("1",) * 40, tuple(tuple(float(c) for c in range(40)) for _ in range(30)))
    drawing = svg.heat_svg(heat)
    data = base64.b64decode(re.findall(r"base64,([^\"]+)", drawing)[0])
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (40, 30)
    start = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[start - 8 : start - 4])
    pixels = zlib.decompress(data[start : start + length])
    assert len(pixels) == 30 * (1 + 4 * 40)
    assert pixels[4] < pixels[4 * 40]


def test_what_happened_before_the_first_point_is_marked_and_what_is_far_away_squeezes_nothing() -> None:
    line = Series("loss", range(20, 100), [1.0] * 80)
    drawing = svg.picture_of(Curves("Loss", (line,), marks=(Mark(0, "early"), Mark(10**15, "far")))).decode()
    assert "<title>early</title>" in drawing
    assert "<title>far</title>" not in drawing


def test_round_values_stand_at_an_axis() -> None:
    assert Scale(0.0, 1.0).ticks() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(1e-6, 1.0, logarithmic=True).ticks() == pytest.approx([1e-6, 1e-4, 1e-2, 1.0])
    assert Scale(1.0, 100.0, logarithmic=True).share(10.0) == pytest.approx(0.5)


def test_blocks_within_sections_are_found() -> None:
    inner = Text("inner")
    assert list(walk([PageSection("a", (PageSection("b", (inner,)),))]))[-1] is inner
    assert len(list(chain(walk(page_with("x").blocks)))) == 11
