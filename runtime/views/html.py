"""A page as one file of HTML: style and drawings inside, no script, nothing from elsewhere, the same bytes each time.

It is well-formed XML too, so programs can read it. What others wrote is escaped, and its policy forbids whatever a
mistake of ours would let through.
"""

from collections.abc import Iterator, Sequence

from runtime.views import blocks
from runtime.views.plot import Plot, outlook
from runtime.views.svg import PALETTE, POINTS, STYLE, VARIABLES, curves_svg, heat_svg, safe, timeline_svg

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

SHEET = """
body{margin:0 auto;padding:24px 20px 60px;max-width:900px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.7rem;margin:0 0 2px;overflow-wrap:anywhere}
h2,summary{font-size:1.2rem;font-weight:600;margin:34px 0 10px;padding-top:10px;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:18px 0 6px}summary{cursor:pointer}
.lead{color:var(--faint);margin:0 0 18px}p{margin:8px 0}p,td,dd,code{overflow-wrap:anywhere}
code,pre{font:13px/1.5 ui-monospace,monospace}
pre{padding:10px 12px;border:1px solid var(--line);border-radius:6px;overflow-x:auto}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;margin:0 0 18px}
.cards div{border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.cards dt{color:var(--faint);font-size:13px}.cards dd{margin:0;font-size:1.3rem;font-weight:600}
.cards small{display:block;font-size:12px;font-weight:400;color:var(--faint)}
.figures{display:grid;grid-template-columns:minmax(110px,max-content) 1fr;gap:3px 18px;margin:8px 0}
.figures div{display:contents}.figures dt{color:var(--faint)}.figures dd{margin:0}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:8px 0;font-size:14px}
th,td{padding:4px 14px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--faint);font-weight:500}th.r,td.r{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
figure{margin:14px 0}figure h3{margin:0 0 4px}figcaption,.note{color:var(--faint);font-size:13px}
svg{display:block;width:100%;height:auto}
.swatch{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:6px}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.strong{font-weight:600}.faint,.tone-note{color:var(--faint)}p.bad,p.warn{border-left:3px solid;padding-left:10px}
@media print{body{max-width:none;padding:0}figure,tr,.cards div{break-inside:avoid}.wide{overflow:visible}}
""" + "".join(f".swatch.c{n}{{background:var(--c{n})}}" for n in range(PALETTE))


def render(page: blocks.Page) -> str:
    """The whole file."""
    head = (
        '<meta charset="utf-8"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{safe(page.title, 200)}</title><style>{VARIABLES}{SHEET}{STYLE}</style>"
    )
    lead = f'<p class="lead">{safe(page.lead)}</p>' if page.lead else ""
    body = "\n".join(_blocks(page.blocks, 2))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
        f"<header><h1>{safe(page.title, 200)}</h1>{lead}</header>\n{body}\n</main></body></html>\n"
    )


def _blocks(parts: Sequence[blocks.Block], level: int) -> Iterator[str]:
    for block in parts:
        match block:
            case blocks.Text():
                yield _text(block)
            case blocks.KeyFigures():
                yield _figures(block)
            case blocks.PageTable():
                yield _table(block)
            case blocks.Curves():
                yield _curves(block)
            case blocks.Timeline():
                yield _timeline(block)
            case blocks.Pictures():
                yield from map(_heat, block.pictures)
            case blocks.PageSection():
                yield _section(block, level)


def _section(section: blocks.PageSection, level: int) -> str:
    inner = "\n".join(_blocks(section.blocks, min(level + 1, 6)))
    title = safe(section.title, 200)
    if section.folded:
        return f"<details><summary>{title}</summary>\n{inner}\n</details>"
    return f"<section><h{level}>{title}</h{level}>\n{inner}\n</section>"


def _text(text: blocks.Text) -> str:
    tone = _class(text.tone)
    if text.code:
        lines = "\n".join(safe(line) for line in blocks.shortened(text.text).split("\n"))
        return f"<pre{tone}>{lines}</pre>"
    return f"<p{tone}>{safe(text.text)}</p>"


def _class(tone: str, *others: str) -> str:
    names = " ".join([*others, *(["tone-note" if tone == "note" else tone] if tone else [])])
    return f' class="{names}"' if names else ""


def _content(content: blocks.Content, kind: blocks.Kind, most: int = blocks.LONGEST) -> str:
    text = safe(blocks.shown(content, kind), most)
    if not text:
        return ""
    code = kind == "code" or (isinstance(content, blocks.Phrase) and content.code)
    text = f"<code>{text}</code>" if code else text
    tone = content.tone if isinstance(content, blocks.Phrase) else ""
    return f"<span{_class(tone)}>{text}</span>" if tone else text


def _figures(figures: blocks.KeyFigures) -> str:
    entries = []
    for each in figures.figures[: blocks.MOST_FIGURES]:
        unit = f" {safe(each.unit, 40)}" if each.unit else ""
        note = f" <small>{safe(each.note, 400)}</small>" if each.note else ""
        entries.append(
            f"<div><dt>{safe(each.name, 100)}</dt><dd>{_content(each.value, each.kind)}{unit}{note}</dd></div>"
        )
    more = blocks.left_out(len(figures.figures), blocks.MOST_FIGURES, "figures")
    more = f'<p class="note">{more}</p>' if more else ""
    return f'<dl class="{"cards" if figures.large else "figures"}">{"".join(entries)}</dl>{more}'


def _table(table: blocks.PageTable) -> str:
    head = "".join(f'<th scope="col"{_right(column.right)}>{safe(column.title, 100)}</th>' for column in table.columns)

    def row(cells: Sequence[blocks.Content]) -> str:
        inner = "".join(
            f"<td{_right(column.right)}>{_content(cell, column.kind, blocks.LONGEST_CELL)}</td>"
            for cell, column in zip(cells, table.columns, strict=True)
        )
        return f"<tr>{inner}</tr>"

    first, between, last = blocks.pieces(table)
    rows = [row(cells) for cells in first]
    if between:
        rows.append(f'<tr><td colspan="{len(table.columns)}" class="faint">… {between} …</td></tr>')
    rows += [row(cells) for cells in last]
    note = f'<p class="note">{safe(table.left_out)}</p>' if table.left_out else ""
    body = "\n".join(rows)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'<div class="wide">{whole}</div>{note}'


def _right(right: bool) -> str:  # noqa: FBT001 - a fact, not a mode
    return ' class="r"' if right else ""


def _curves(curves: blocks.Curves) -> str:
    plot = Plot.of(curves, POINTS)
    rows = []
    for at, each in enumerate(curves.series[: blocks.MOST_SERIES]):
        seen = outlook(each)
        cells = "".join(f'<td class="r">{value:.6g}</td>' for value in seen) if seen else '<td colspan="4">none</td>'
        name = f'<span class="swatch c{at % PALETTE}"></span>{safe(each.name, 100)}'
        rows.append(f'<tr><th scope="row">{name}</th>{cells}<td class="r">{len(each.y):,}</td></tr>')
    names = ("first", "lowest", "highest", "last", "points")
    head = '<th scope="col">curve</th>' + "".join(f'<th scope="col" class="r">{name}</th>' for name in names)
    legend = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    marks = [
        f"{curves.x_name} {mark.x:.6g}: {blocks.shortened(mark.label, 160)}"
        for mark in curves.marks[: blocks.MOST_MARKS]
    ]
    notes = [f"Marked: {'; '.join(marks)}." if marks else "", *plot.notes]
    return _figure(curves.title, curves_svg(curves, plot), legend, notes)


def _heat(heat: blocks.HeatMap) -> str:
    axes = [
        f"rows: {heat.rows_are}" if heat.rows_are else "",
        f"columns: {heat.columns_are}" if heat.columns_are else "",
    ]
    return _figure(heat.title, heat_svg(heat), safe("; ".join(filter(None, axes))), [heat.left_out])


def _figure(title: str, drawing: str, caption: str, notes: Sequence[str]) -> str:
    told = "".join(f'<p class="note">{safe(text, 16_000)}</p>' for text in notes if text)
    return f"<figure><h3>{safe(title, 200)}</h3>{drawing}<figcaption>{caption}{told}</figcaption></figure>"


def _timeline(timeline: blocks.Timeline) -> str:
    moments = [f"{blocks.shortened(mark.label, 160)} at {mark.x:.1f} s" for mark in timeline.marks[: blocks.MOST_MARKS]]
    notes = [
        f"{'; '.join(moments)}." if moments else "",
        timeline.left_out,
        blocks.left_out(len(timeline.bars), blocks.MOST_BARS, "bars"),
        blocks.left_out(len(timeline.marks), blocks.MOST_MARKS, "moments"),
    ]
    return _figure(timeline.title, timeline_svg(timeline), "", notes)
