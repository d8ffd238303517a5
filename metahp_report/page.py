"""A report as one HTML file that needs nothing else: no network, no other file.

Foreign text cannot act: it is escaped as HTML, as JSON inside the page and as Plotly's own markup (``figures``), and a content security
policy lets only the three scripts that this module writes run, known by their digests, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from metahp_report.figures import figure
from metahp_report.parts import Gallery, Plot, Prose, Report, Section, Table
from metahp_report.theme import DARK, LIGHT
from metahp_report.wording import clean, show_size
from store.errors import HistoryPathError
from store.extras import needed_for

_LONGEST_CELL = 160
_WIDE_COLUMNS = 8
_SHORT_CELL = 24  # stays on one line
_SIZE = "\x00size\x00"  # stands for the file's own size until it is known; no text of the page can hold it


def write_page(report: Report, path: str | Path) -> int:
    """Write a report as an HTML file.

    Args:
        report: What it says.
        path: The file; its folder must exist.

    Returns:
        Its size in bytes.

    Raises:
        MissingDependencyError: If Plotly is not installed.
        HistoryPathError: If the file cannot be written.
    """
    content = render_page(report).encode("utf-8")
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise HistoryPathError(
            f"The report must go into a file that can be written, but {str(path)!r} gives: {error.strerror or error}. "
            "Name a file in an existing folder with --out."
        ) from error
    return len(content)


def render_page(report: Report) -> str:
    """Return a report as HTML.

    Raises:
        MissingDependencyError: If Plotly is not installed.
    """
    figures: list[dict[str, Any]] = []
    body = "".join(_body(report, figures))
    plotly, script, style = plotly_source(), _own("page.js"), _own("page.css")
    policy = f"default-src 'none'; script-src {_digest(plotly)} {_digest(script)}; "
    policy += "style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"{html.escape(policy)}; base-uri 'none'; form-action 'none'\">\n",
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n',
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n',
        f"<title>{_text(report.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n",
        f'<script type="application/json" id="themes">{embedded({"light": LIGHT, "dark": DARK})}</script>\n',
        f'<script type="application/json" id="figures">{embedded(figures)}</script>\n',
        f"<script>{plotly}</script>\n<script>{script}</script>\n</body>\n</html>\n",
    ]
    text = "".join(parts)
    size = f"{show_size(len(text.encode('utf-8')))}, of which {show_size(len(plotly))} are Plotly"
    return text.replace(_SIZE, size)


def plotly_source() -> str:
    """Return Plotly's script.

    Raises:
        MissingDependencyError: If Plotly is not installed.
    """
    with needed_for("A report as a page"):
        from plotly.offline import get_plotlyjs
    return str(get_plotlyjs())


def embedded(value: Any) -> str:
    """Return JSON that can stand in a ``<script>`` element: no text in it can end the element or begin a comment.

    Raises:
        ValueError: If a number is not finite; figures hold None there.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _own(name: str) -> str:
    return resources.files("metahp_report").joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"


def _text(text: str, longest: int = 2000) -> str:
    return html.escape(clean(text, longest))


def _body(report: Report, figures: list[dict[str, Any]]) -> Iterator[str]:
    yield f'<h1>{_text(report.title, 200)}</h1>\n<p class="subtitle">{_text(report.subtitle)}</p>\n'
    if report.tiles:
        tiles = (f"<div class='tile'><b>{_text(a)}</b><span>{_text(b)}</span><small>{_text(c)}</small></div>\n" for a, b, c in report.tiles)
        yield f'<div class="tiles">\n{"".join(tiles)}</div>\n'
    if report.findings:
        items = "".join(f"<li>{_text(item)}</li>\n" for item in report.findings)
        yield f'<div class="findings"><h3>What it says</h3>\n<ul>\n{items}</ul></div>\n'
    sections = [section for section in report.sections if section.parts]
    links = "".join(f'<a href="#s{index}">{_text(section.title)}</a>\n' for index, section in enumerate(sections))
    yield f"<nav>\n{links}</nav>\n"
    for index, section in enumerate(sections):
        yield from _section(index, section, figures)
    remarks = "".join(f"<p>{_text(remark)}</p>\n" for remark in report.remarks)
    yield f"<footer>\n{remarks}<p>This file is {_SIZE}. It needs no network and loads nothing.</p>\n</footer>\n"


def _section(index: int, section: Section, figures: list[dict[str, Any]]) -> Iterator[str]:
    yield f'<section id="s{index}">\n<h2>{_text(section.title)}</h2>\n<p>{_text(section.about)}</p>\n'
    for part in section.parts:
        if isinstance(part, Prose):
            yield f"<p>{_text(part.text)}</p>\n"
        elif isinstance(part, Table):
            yield _table(part)
        elif isinstance(part, Plot):
            yield _plot(part, figures)
        else:
            yield _gallery(part, figures)
    yield "</section>\n"


def _place(plot: Plot, figures: list[dict[str, Any]]) -> str:
    """Note a figure and return the element it is drawn in."""
    figures.append(figure(plot))
    number = len(figures) - 1
    label = f'role="img" aria-label="{_text(plot.title)}"'
    place = f'id="plot{number}" data-figure="{number}" data-file="{_text(plot.name)}"'
    return f'<div class="plot" {place} {label} style="height:{plot.height}px"></div>\n'


def _plot(plot: Plot, figures: list[dict[str, Any]]) -> str:
    note = f'<p class="note">{_text(plot.note)}</p>\n' if plot.note else ""
    return f'<div class="part">\n<h3>{_text(plot.title)}</h3>\n{_place(plot, figures)}{note}</div>\n'


def _gallery(gallery: Gallery, figures: list[dict[str, Any]]) -> str:
    first = gallery.plots[0][1]
    number = len(figures)
    place = _place(first, figures)
    options = []
    for index, (label, plot) in enumerate(gallery.plots):
        if index:
            figures.append(figure(plot))
        attributes = f'value="{number + index}" data-file="{_text(plot.name)}" data-note="{_text(plot.note)}"'
        options.append(f"<option {attributes}>{_text(label, 60)}</option>")
    choice = (
        f'<label>{_text(gallery.label)}<select data-plot="plot{number}">{"".join(options)}</select></label>' if len(options) > 1 else ""
    )
    hidden = "" if first.note else " hidden"
    note = f'<p class="note" id="plot{number}-note"{hidden}>{_text(first.note)}</p>\n'
    more = f'<p class="note">{_text(gallery.note)}</p>\n' if gallery.note else ""
    return f'<div class="part">\n<div class="bar"><h3>{_text(first.title)}</h3>{choice}</div>\n{place}{note}{more}</div>\n'


def _short(cell: str) -> str:
    return " short" if len(cell) <= _SHORT_CELL else ""


def _table(table: Table) -> str:
    words = table.is_text | {0}
    kinds = ["words" if index in words else "number" for index in range(len(table.columns))]
    head = "".join(f'<th class="{kind}" scope="col">{_text(name, 80)}</th>' for kind, name in zip(kinds, table.columns, strict=True))
    lines = []
    for number, row in enumerate(table.rows):
        best = table.best[number] if table.best else frozenset()
        kinds_of = (f"{kind}{_short(cell)}{' best' if at in best else ''}" for at, (kind, cell) in enumerate(zip(kinds, row, strict=True)))
        cells = (f'<td class="{kind}">{_text(cell, _LONGEST_CELL)}</td>' for kind, cell in zip(kinds_of, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    note = f'<p class="note">{_text(table.note)}</p>\n' if table.note else ""
    wide = ' class="wide"' if len(table.columns) > _WIDE_COLUMNS else ""
    title = f"<h3>{_text(table.title)}</h3>\n" if table.title else ""
    return (
        f'<div class="part">\n{title}<div class="scroll" tabindex="0">'
        f"<table{wide}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>\n</table></div>\n{note}</div>\n"
    )
