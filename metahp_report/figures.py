"""A picture as a Plotly figure: plain dictionaries, with colours as tokens such as ``@blue`` or ``@blue:0.2`` that the page fills in.

Plotly reads part of HTML in every text it draws (``<b>``, ``<a href>``, ``<br>``, ...), and ``%{...}`` in templates. So each foreign text
is escaped by ``inert`` and never becomes part of a template.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metahp_report.parts import Kind, Plot, Series, Tone
from metahp_report.wording import clean

MAX_MARKS_OF_SERIES = 4000
"""Marks of one series: more than anybody can distinguish, and what keeps a page of 10,000 runs quick."""
_LONGEST_HOVER = 400
_AXIS_FONT = 12


def inert(text: str, longest: int = 80) -> str:
    """Return a foreign text that Plotly draws letter by letter: no tag, and no formula, which stands between dollar signs."""
    return clean(text, longest).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def inert_lines(text: str) -> str:
    """Return a foreign text with its line breaks, for a hover box."""
    return "<br>".join(inert(line, _LONGEST_HOVER) for line in text.split("\n"))


def plain(values: Sequence[Any]) -> list[Any]:
    """Return values as JSON can hold them: a number that is not finite becomes None, which is a gap; labels become inert."""
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return inert(value)
    number = float(value)
    return None if not math.isfinite(number) else int(number) if number == int(number) and abs(number) < 1e15 else float(f"{number:.6g}")


def figure(plot: Plot) -> dict[str, Any]:
    """Return ``data`` and ``layout`` of a picture."""
    traces = [trace for series in plot.series for trace in _traces(plot, series)]
    if plot.has_diagonal:
        traces.insert(0, _diagonal(plot))
    return {"data": traces, "layout": _layout(plot)}


def _traces(plot: Plot, series: Series) -> Iterator[dict[str, Any]]:
    """Yield the band of a series, if it has one, and the series."""
    group = f"{series.name}"
    base: dict[str, Any] = {
        "name": inert(series.name, 40),
        "x": plain(series.x),
        "y": plain(series.y),
        "showlegend": series.in_legend,
        "legendgroup": inert(group, 40),
    }
    if len(series.hover) == 1 and len(series.x) > 1:  # once, instead of with every point of a curve
        base |= {"hovertext": inert_lines(series.hover[0]), "hoverinfo": "x+y+text"}
    elif series.hover:
        # a text that is to be read, not only shown beside the mouse, has a name of its own
        base |= {"text" if series.kind is Kind.TEXT else "hovertext": [inert_lines(text) for text in series.hover], "hoverinfo": "text"}
    if series.kind in {Kind.LINE, Kind.STEP}:
        if len(series.low):
            yield from _band(series, base)
        yield {**base, **_line(series)}
    elif series.kind is Kind.POINTS:
        yield {**base, **_points(series), **_whiskers(plot, series)}
    elif series.kind is Kind.BARS:
        yield {**base, **_bars(plot, series), **_whiskers(plot, series)}
    else:
        yield {**base, "type": "scatter", "mode": "text", "hoverinfo": "skip", "textfont": {"color": f"@{series.tone}", "size": 11}}


def _line(series: Series) -> dict[str, Any]:
    line = {"color": f"@{series.tone}", "width": 3 if series.is_strong else 1.6, "dash": series.dash}
    if series.kind is Kind.STEP:
        line["shape"] = "hv"
    n_known = sum(value is not None for value in series.y)
    mark = {"mode": "lines+markers", "marker": {"size": 7 if series.is_strong else 5, "symbol": series.symbol, "color": f"@{series.tone}"}}
    return {"type": "scatter", "line": line, **(mark if n_known <= 1 or series.symbol != "circle" else {"mode": "lines"})}


def _band(series: Series, base: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    line: dict[str, Any] = {"width": 0, "color": f"@{series.tone}"}
    if series.kind is Kind.STEP:
        line["shape"] = "hv"
    rest = {"type": "scatter", "mode": "lines", "line": line, "showlegend": False, "hoverinfo": "skip"}
    shared = {"x": base["x"], "legendgroup": base["legendgroup"], "name": base["name"], **rest}
    yield {**shared, "y": plain(series.low)}
    yield {**shared, "y": plain(series.high), "fill": "tonexty", "fillcolor": f"@{series.tone}:{0.22 if series.is_strong else 0.1}"}


def _points(series: Series) -> dict[str, Any]:
    size = 11 if series.is_strong else 7
    opacity = 1.0 if series.is_strong or len(series.x) < 100 else 0.75
    marker: dict[str, Any] = {"color": f"@{series.tone}", "size": size, "symbol": series.symbol, "opacity": opacity}
    if series.symbol not in {"x", "cross"} and not series.symbol.endswith("-open"):
        marker["line"] = {"color": "@ground", "width": 1}
    return {"type": "scatter", "mode": "markers", "marker": marker}


def _bars(plot: Plot, series: Series) -> dict[str, Any]:
    return {"type": "bar", "orientation": "h" if plot.is_sideways else "v", "marker": {"color": f"@{series.tone}"}}


def _whiskers(plot: Plot, series: Series) -> dict[str, Any]:
    if not len(series.low):
        return {}
    values = series.x if plot.is_sideways else series.y
    above = [None if v is None or h is None else h - v for v, h in zip(values, series.high, strict=True)]
    below = [None if v is None or low is None else v - low for v, low in zip(values, series.low, strict=True)]
    tone = Tone.INK if series.kind is Kind.BARS else series.tone
    shown = {"type": "data", "symmetric": False, "array": plain(above), "arrayminus": plain(below), "color": f"@{tone}"}
    return {"error_x" if plot.is_sideways else "error_y": {**shown, "thickness": 1.4, "width": 4}}


def _diagonal(plot: Plot) -> dict[str, Any]:
    low, high = plot.x_range or (0.0, 1.0)
    line = {"color": "@muted", "width": 1.2, "dash": "dash"}
    shared = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False, "name": "exact"}
    return {**shared, "x": plain([low, high]), "y": plain([low, high]), "line": line}


def _layout(plot: Plot) -> dict[str, Any]:
    n_named = len({series.name for series in plot.series if series.in_legend})
    layout: dict[str, Any] = {
        "height": plot.height,
        "margin": {"l": 64, "r": 20, "t": 14 if n_named <= 1 else 44, "b": 54},
        "paper_bgcolor": "@ground:0",
        "plot_bgcolor": "@ground:0",
        "font": {
            "color": "@text",
            "size": 13,
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
        },
        "hoverlabel": {"bgcolor": "@ground", "bordercolor": "@faint", "font": {"color": "@text", "size": 12}, "align": "left"},
        "hovermode": "closest",
        "showlegend": n_named > 1,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        "xaxis": _axis(plot, "x"),
        "yaxis": _axis(plot, "y"),
        "bargap": 0.3,
    }
    if plot.is_stacked:
        layout["barmode"] = "stack"
    return layout


def _axis(plot: Plot, which: str) -> dict[str, Any]:
    title, is_log, ends, ticks, is_percent = (
        getattr(plot, f"{which}_{name}") for name in ("title", "is_log", "range", "ticks", "is_percent")
    )
    grid = {"gridcolor": "@grid", "linecolor": "@faint", "zerolinecolor": "@grid", "automargin": True, "showline": plot.has_frame}
    axis: dict[str, Any] = {"title": {"text": inert(title, 90), "font": {"size": _AXIS_FONT}}, "tickfont": {"size": _AXIS_FONT}, **grid}
    values = [value for series in plot.series for value in getattr(series, which)]
    if any(isinstance(value, str) for value in values):
        is_time = all(value is None or (isinstance(value, str) and _is_time(value)) for value in values)
        # said outright: Plotly would take a label such as "1e3" for a number, and "2024" for a date
        axis |= {"type": "date"} if is_time else {"type": "category"}
        if which == "y" and not is_time:
            axis["autorange"] = "reversed"
    elif is_log:
        axis |= {"type": "log", "dtick": 1, "exponentformat": "power"} if _decades(values) >= 2 else {"type": "log"}
    else:
        axis["type"] = "linear"
    if is_percent:
        axis["tickformat"] = ".0%"
    if ends is not None:
        axis["range"] = [math.log10(end) for end in ends] if is_log else list(ends)
    if ticks:
        axis |= {"tickmode": "array", "tickvals": plain([at for at, _ in ticks]), "ticktext": [inert(label, 34) for _, label in ticks]}
        axis.pop("dtick", None)
    if not plot.has_frame:
        axis |= {"showgrid": False, "zeroline": False} | ({"showticklabels": False} if not ticks else {})
    return axis


def _is_time(text: str) -> bool:
    return len(text) >= 19 and text[4:5] == text[7:8] == "-" and text[10:11] == "T" and text[:4].isdigit()


def _decades(values: Sequence[Any]) -> float:
    known = [value for value in values if isinstance(value, int | float) and value > 0 and math.isfinite(value)]
    return math.log10(max(known) / min(known)) if known else 0.0


def coloured(value: Any, colours: Mapping[str, tuple[int, int, int]]) -> Any:
    """Return a figure with its colour tokens filled in, as the page's script does it.

    Args:
        value: A figure, or a part of one.
        colours: One of the themes.
    """
    if isinstance(value, Mapping):
        return {key: _filled(item, colours) if "color" in key else coloured(item, colours) for key, item in value.items()}
    return [coloured(item, colours) for item in value] if isinstance(value, list) else value


def _filled(value: Any, colours: Mapping[str, tuple[int, int, int]]) -> Any:
    if not isinstance(value, str) or not value.startswith("@"):
        return coloured(value, colours)
    name, _, alpha = value[1:].partition(":")
    red, green, blue = colours[name]
    return f"rgba({red},{green},{blue},{alpha or 1})"
