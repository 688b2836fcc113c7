"""Curves, timelines and heat maps as SVG: for a page of HTML, and as files of their own beside a report.

The same block gives the same bytes. Every colour is a class, so that one style sheet serves light, dark and paper.
"""

import base64
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from html import escape

from runtime.views.blocks import LONGEST, MOST_BARS, MOST_MARKS, Curves, HeatMap, Mark, Timeline, shortened
from runtime.views.formatting import one_line
from runtime.views.plot import Plot, PlotLine, Scale, shades

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 34
POINTS = 1200
"""Points of one curve that are drawn at most."""

TONES = {"": "plain", "note": "note", "good": "good", "bad": "bad", "warn": "warn", "strong": "plain", "faint": "plain"}

STYLE = (
    "svg{font:12px system-ui,sans-serif}"
    "svg text{fill:var(--ink)}svg .axis{stroke:var(--line);stroke-width:1}svg .small{fill:var(--faint)}"
    "svg .grid{stroke:var(--line);stroke-opacity:.5}"
    "svg .curve{fill:none;stroke-width:1.6;stroke-linejoin:round}svg .mark{stroke-width:1.2;stroke-dasharray:4 3}"
    "svg .mark.note,svg .mark.plain{stroke:var(--faint)}svg .mark.good{stroke:var(--good)}"
    "svg .mark.bad{stroke:var(--bad)}svg .mark.warn{stroke:var(--warn)}"
    "svg .bar.plain{fill:var(--c0)}svg .bar.note{fill:var(--quiet)}svg .bar.good{fill:var(--good)}"
    "svg .bar.bad{fill:var(--bad)}svg .bar.warn{fill:var(--warn)}"
    "svg .cell{fill:var(--c0)}svg .over{fill:var(--over)}svg .ground{fill:var(--paper)}"
) + "".join(f"svg .curve.c{n}{{stroke:var(--c{n})}}svg .dot.c{n}{{fill:var(--c{n})}}" for n in range(8))
"""The rules for all drawings, by names of colours."""


def _named_colours(palette: str, **others: str) -> dict[str, str]:
    return {f"c{n}": colour for n, colour in enumerate(palette.split())} | others


LIGHT = _named_colours(
    "#0b6bcb #c2410c #15803d #9333ea #b45309 #0e7490 #be123c #4d7c0f",
    ink="#1c2024",
    faint="#5f6871",
    line="#d5dae0",
    quiet="#6b7580",
    paper="#ffffff",
    over="#ffffff",
    good="#15803d",
    bad="#b91c1c",
    warn="#a16207",
)
DARK = _named_colours(
    "#60a5fa #fb923c #4ade80 #c084fc #fbbf24 #22d3ee #fb7185 #a3e635",
    ink="#e6e8ea",
    faint="#9aa4ae",
    line="#3a424b",
    quiet="#8f99a3",
    paper="#14171a",
    over="#0b1220",
    good="#4ade80",
    bad="#f87171",
    warn="#facc15",
)
PALETTE = 8
"""Colours of series; the ninth series has that of the first again."""


def _as_variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


VARIABLES = (
    f":root{{color-scheme:light dark;{_as_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_as_variables(DARK)}}}}}"
    f"@media print{{:root{{color-scheme:light;{_as_variables(LIGHT)}}}}}"
)
"""The colours of a page, for light, dark and paper."""


def _coloured(colours: dict[str, str]) -> str:
    """The rules with the colours themselves: many programs that read pictures know no variables."""
    return re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], STYLE)


_UNREPRESENTABLE = "[\ufffe\uffff]"
"""What printable text may hold and XML may not."""


def safe(text: str, most: int = LONGEST) -> str:
    """Text of strangers as the content of an element or an attribute: one bounded line without markup."""
    return escape(re.sub(_UNREPRESENTABLE, "\ufffd", one_line(shortened(text, most))))


def picture_of(curves: Curves) -> bytes:
    """Curves as a file of their own, with its style sheet."""
    return curves_svg(curves, Plot.of(curves, POINTS), alone=True).encode()


def curves_svg(curves: Curves, plot: Plot, *, alone: bool = False) -> str:
    """Curves with their axes, marks and, in a file of its own, the names of the series."""
    parts = list(_frame(plot, curves.x_name))
    parts += [_mark(mark, plot.across) for mark in curves.marks[:MOST_MARKS]]
    parts += [_curve(each, at % PALETTE, plot) for at, each in enumerate(plot.drawn)]
    if alone:
        parts += _legend([each.name for each in plot.drawn])
    summary = " ".join([", ".join(each.name for each in plot.drawn), f"by {curves.x_name}.", *plot.notes])
    return _svg(curves.title, summary, HEIGHT + (22 if alone else 0), parts, alone=alone)


def _svg(title: str, summary: str, height: int, parts: Sequence[str], *, alone: bool = False) -> str:
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    dark = f"@media (prefers-color-scheme:dark){{{_coloured(DARK)}}}"
    style = f"<style>{_coloured(LIGHT)}{dark}</style>" if alone else ""
    ground = f'<rect class="ground" width="{WIDTH}" height="{height}"/>' if alone else ""
    head = f'<svg{space} role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    about = f"<title>{safe(title)}</title><desc>{safe(summary)}</desc>"
    return f"{head}{about}{style}{ground}{''.join(parts)}</svg>"


def _frame(plot: Plot, x_name: str) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    yield f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
    if not any(math.isfinite(y) for each in plot.drawn for _, y in each.points):
        middle = (LEFT + right) // 2
        yield f'<text x="{middle}" y="{HEIGHT // 2}" text-anchor="middle" class="small">no finite value</text>'
        return
    for value in plot.up.ticks():
        y = _number(_y(value, plot.up))
        yield f'<path class="axis" d="M{LEFT - 4} {y}H{LEFT}"/><path class="grid" d="M{LEFT} {y}H{right}"/>'
        yield f'<text x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end" class="small">{_tick(value)}</text>'
    for value in plot.across.ticks(8):
        x = _number(_x(value, plot.across))
        yield f'<path class="axis" d="M{x} {bottom}V{bottom + 4}"/>'
        yield f'<text x="{x}" y="{bottom + 17}" text-anchor="middle" class="small">{_tick(value)}</text>'
    axes = safe(x_name, 80) + (", values on a logarithmic scale" if plot.up.logarithmic else "")
    yield f'<text x="{right}" y="{HEIGHT - 3}" text-anchor="end" class="small">{axes}</text>'


def _x(value: float, across: Scale) -> float:
    return LEFT + across.share(value) * (WIDTH - LEFT - RIGHT)


def _y(value: float, up: Scale) -> float:
    return HEIGHT - BOTTOM - up.share(value) * (HEIGHT - BOTTOM - TOP)


def _curve(drawn: PlotLine, colour: int, plot: Plot) -> str:
    """One path, broken where a value is not finite; points are shown where they are few, or stand alone."""
    name, few = safe(drawn.name, 80), len(drawn.points) <= 60
    steps, dots, pen = [], [], "M"
    values = [y for _, y in drawn.points]
    for at, (x, y) in enumerate(drawn.points):
        if not math.isfinite(y):
            pen = "M"
            continue
        across, up = _number(_x(x, plot.across)), _number(_y(y, plot.up))
        steps.append(f"{pen}{across} {up}")
        alone = pen == "M" and not math.isfinite((*values, math.nan)[at + 1])
        if few or alone:
            about = f"<title>{name} {y:.6g} at {x:.6g}</title>"
            dots.append(f'<circle class="dot c{colour}" cx="{across}" cy="{up}" r="2.4">{about}</circle>')
        pen = "L"
    path = f'<path class="curve c{colour}" d="{"".join(steps)}"><title>{name}</title></path>' if steps else ""
    return path + "".join(dots)


def _mark(mark: Mark, across: Scale) -> str:
    if not across.low <= mark.x <= across.high:
        return ""
    x = _number(_x(mark.x, across))
    line = f'<path class="mark {TONES[mark.tone]}" fill="none" d="M{x} {TOP}V{HEIGHT - BOTTOM}">'
    return f"{line}<title>{safe(mark.label, 200)}</title></path>"


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = LEFT
    for at, name in enumerate(names):
        shown = safe(name, 24)
        yield f'<circle class="dot c{at % PALETTE}" cx="{x}" cy="{HEIGHT + 8}" r="4"/>'
        yield f'<text x="{x + 8}" y="{HEIGHT + 12}">{shown}</text>'
        x += 24 + 7 * min(len(name), 24)


def timeline_svg(timeline: Timeline) -> str:
    """Bars in lines over one axis of time."""
    bars = timeline.bars[:MOST_BARS]
    lines = list(dict.fromkeys(bar.line for bar in bars))
    high = max([bar.ends for bar in bars] + [mark.x for mark in timeline.marks[:MOST_MARKS]], default=0.0)
    across = Scale(0.0, high)
    left, row = 110, 26
    bottom = TOP + row * len(lines)

    def place(value: float) -> float:
        return left + across.share(value) * (WIDTH - left - RIGHT)

    parts = [f'<path class="axis" fill="none" d="M{left} {TOP}V{bottom}H{WIDTH - RIGHT}"/>']
    for at, line in enumerate(lines):
        parts.append(f'<text x="{left - 8}" y="{TOP + row * at + 17}" text-anchor="end">{safe(line, 16)}</text>')
    for bar in bars:
        left_end, y = place(bar.begins), TOP + row * lines.index(bar.line) + 4
        width = max(place(bar.ends) - left_end, 1.5)
        about = f"{bar.line} {bar.label}: {bar.begins:.1f} s to {bar.ends:.1f} s"
        box = f'x="{_number(left_end)}" y="{y}" width="{_number(width)}" height="{row - 8}" rx="2"'
        parts.append(f'<rect class="bar {TONES[bar.tone]}" {box}><title>{safe(about, 300)}</title></rect>')
        if width > 9 * len(bar.label) > 0:
            parts.append(f'<text class="over" x="{_number(left_end + 5)}" y="{y + 13}">{safe(bar.label, 60)}</text>')
    for mark in timeline.marks[:MOST_MARKS]:
        line = f'<path class="mark {TONES[mark.tone]}" fill="none" d="M{_number(place(mark.x))} {TOP}V{bottom}">'
        parts.append(f"{line}<title>{safe(f'{mark.label}: {mark.x:.1f} s', 300)}</title></path>")
    for value in across.ticks(8) if high else []:
        x = _number(place(value))
        parts.append(f'<path class="axis" d="M{x} {bottom}V{bottom + 4}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 17}" text-anchor="middle" class="small">{_tick(value)} s</text>')
    summary = "; ".join(f"{bar.line} {bar.label} {bar.begins:.1f} to {bar.ends:.1f} s" for bar in bars[:20])
    return _svg(timeline.title, summary, bottom + 24, parts)


CELLS = 400
"""Cells of a heat map up to which each is drawn with its value; a larger one is a picture of pixels."""


def heat_svg(heat: HeatMap) -> str:
    """A heat map with its names: cells with their values, or, where they are many, one pixel for each."""
    rows, columns = len(heat.values), max((len(row) for row in heat.values), default=0)
    left, top = 110, 26
    wide = WIDTH - left - RIGHT
    width, height = (min(56.0, wide / columns), 26.0) if columns else (0.0, 0.0)
    if rows * columns > CELLS:
        width, height = wide / columns, max(3.0, min(18.0, 360 / rows))
    shares = shades(heat)
    parts = []
    if rows * columns > CELLS:
        data = base64.b64encode(png([[round(255 * share) for share in row] for row in shares])).decode()
        box = f'x="{left}" y="{top}" width="{_number(width * columns)}" height="{_number(height * rows)}"'
        how = 'preserveAspectRatio="none" style="image-rendering:pixelated"'
        parts.append(f'<image {box} {how} href="data:image/png;base64,{data}"/>')
    else:
        for r, row in enumerate(heat.values):
            for c, value in enumerate(row):
                parts.append(
                    _cell(heat, (r, c), value, shares[r][c], (left + c * width, top + r * height, width, height))
                )
    every = max(1, math.ceil(11 / height)) if height else 1
    for r, name in list(enumerate(heat.row_names[:rows]))[::every]:
        y = _number(top + (r + 0.5) * height)
        parts.append(
            f'<text x="{left - 6}" y="{y}" dy="4" text-anchor="end" class="small">{safe(_fit(name, 16))}</text>'
        )
    every = max(1, math.ceil(48 / width)) if width else 1
    for c, name in list(enumerate(heat.column_names[:columns]))[::every]:
        x = _number(left + (c + 0.5) * width)
        parts.append(f'<text x="{x}" y="{top - 6}" text-anchor="middle" class="small">{safe(_fit(name, 8))}</text>')
    summary = f"{rows} rows ({heat.rows_are or 'by name'}), {columns} columns ({heat.columns_are or 'by name'})."
    return _svg(heat.title, summary, round(top + rows * height + 8), parts)


def _cell(
    heat: HeatMap, place: tuple[int, int], value: float | None, share: float, box: tuple[float, float, float, float]
) -> str:
    x, y, width, height = box
    text = "" if value is None or not math.isfinite(value) else f"{value:.4g}"
    about = f"{_named(heat.row_names, place[0])}, {_named(heat.column_names, place[1])}: {text or 'none'}"
    drawn = (
        f'<rect class="cell" x="{_number(x)}" y="{_number(y)}" width="{_number(width - 1)}"'
        f' height="{_number(height - 1)}" fill-opacity="{_number(0.06 + 0.9 * share)}">'
        f"<title>{safe(about, 200)}</title></rect>"
    )
    if text and width > 7 * len(text):
        middle = f'x="{_number(x + width / 2)}" y="{_number(y + height / 2)}" dy="4" text-anchor="middle"'
        drawn += f'<text class="{"over" if share > 0.55 else "plain"}" {middle}>{text}</text>'
    return drawn


def _named(names: Sequence[str], at: int) -> str:
    return names[at] if at < len(names) else str(at)


def _fit(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def png(rows: Sequence[Sequence[int]]) -> bytes:
    """Shares of 255 as a picture of pixels in blue, more of it where the number is higher.

    Its bytes are stored and not compressed: they are the same with every version of the compressor.
    """
    height, width = len(rows), max((len(row) for row in rows), default=0)
    raw = b"".join(b"\0" + b"".join(bytes((11, 107, 203, max(10, value))) for value in row) for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 0)) + chunk(b"IEND", b"")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 1 else f"{value:.2f}".rstrip("0").rstrip(".")


def _tick(value: float) -> str:
    return (
        f"{value:.4g}" if abs(value) < 100_000 or value % 1 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    )
