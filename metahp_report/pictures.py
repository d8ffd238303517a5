"""A report's pictures as PNG files, drawn by matplotlib: no browser, no network, on any machine that can train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metahp_report.parts import Kind, Plot, Report, Series, Tone
from metahp_report.theme import LIGHT
from metahp_report.wording import clean
from store.errors import HistoryPathError, InvalidArgumentError
from store.extras import needed_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "star": "*",
    "x": "x",
    "circle-open": "o",
    "diamond-open": "D",
}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_DPI = 150
_PIXELS = 100.0
_MAX_LEGEND = 12


def save_pictures(report: Report, path: str | Path) -> list[Path]:
    """Draw a report's pictures.

    Args:
        report: The report.
        path: A folder for all of them, made if it is not there; or a file ending in ``.png`` for the one whose name it has.

    Returns:
        The files.

    Raises:
        InvalidArgumentError: If the report has no picture of that name; the message lists those it has.
        HistoryPathError: If the files cannot be written.
    """
    path = Path(path)
    plots = {plot.name: plot for plot in report.plots()}
    if path.suffix.lower() == ".png":
        if path.stem not in plots:
            raise InvalidArgumentError(
                f"A picture's file must have the name of a plot, but got {path.name!r}; "
                f"possible are {', '.join(f'{name}.png' for name in plots) or 'none, since nothing can be drawn yet'}. "
                "Name a folder for all of them."
            )
        return [save_picture(plots[path.stem], path)]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return [save_picture(plot, path / f"{name}.png") for name, plot in plots.items()]


def save_picture(plot: Plot, path: Path) -> Path:
    """Draw one picture into a file.

    Raises:
        HistoryPathError: If the file cannot be written.
    """
    try:
        return draw(plot, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> HistoryPathError:
    return HistoryPathError(
        f"Pictures must go where files can be written, but {str(path)!r} gives: {error.strerror or error}. Name another place with --png."
    )


def draw(plot: Plot, path: Path) -> Path:
    """Draw one picture into a file."""
    with needed_for("A picture"):
        import matplotlib as mpl
        from matplotlib.figure import Figure

    # foreign text is no formula: "$" in a run's name would otherwise be read as TeX, and a broken one ends in an error
    with mpl.rc_context({"text.parse_math": False, "font.size": 9.5, "axes.unicode_minus": False}):
        figure = Figure(figsize=(9.2, plot.height / _PIXELS + 0.7), layout="constrained")
        axes = figure.subplots()
        _style(axes, plot)
        for series in plot.series:
            _draw_series(axes, plot, series)
        _finish(axes, plot)
        figure.savefig(path, format="png", dpi=_DPI, facecolor="white")
    return path


def _colour(tone: str, alpha: float = 1.0) -> tuple[float, float, float, float]:
    red, green, blue = LIGHT[tone]
    return red / 255, green / 255, blue / 255, alpha


def _numbers(values: Sequence[Any], labels: list[str]) -> list[Any]:
    """Return values as matplotlib takes them: times as such, labels by their place, None as NaN."""
    if labels:
        return [math.nan if value is None else labels.index(clean(value)) for value in values]
    return [
        math.nan if value is None else datetime.fromisoformat(value).replace(tzinfo=None) if isinstance(value, str) else float(value)
        for value in values
    ]


def _labels(plot: Plot, which: str) -> list[str]:
    from metahp_report.figures import _is_time

    values = [value for series in plot.series for value in getattr(series, which) if value is not None]
    if not any(isinstance(value, str) for value in values) or all(isinstance(value, str) and _is_time(value) for value in values):
        return []
    return list(dict.fromkeys(clean(value) for value in values))


def _draw_series(axes: Axes, plot: Plot, series: Series) -> None:
    x, y = _numbers(series.x, _labels(plot, "x")), _numbers(series.y, _labels(plot, "y"))
    low, high = ([math.nan if end is None else float(end) for end in ends] for ends in (series.low, series.high))
    label = clean(series.name, 40) if series.in_legend else "_nolegend_"
    shared: dict[str, Any] = {"color": _colour(series.tone), "label": label, "zorder": 4 if series.is_strong else 3}
    marker = _MARKERS.get(series.symbol, "o")
    if series.kind in {Kind.LINE, Kind.STEP}:
        step: dict[str, Any] = {"drawstyle": "steps-post"} if series.kind is Kind.STEP else {}
        shows = series.symbol != "circle" or sum(value is not None for value in series.y) <= 1
        width = 2.4 if series.is_strong else 1.2
        axes.plot(x, y, linestyle=_DASHES[series.dash], linewidth=width, marker=marker if shows else "", markersize=4.5, **shared, **step)
        if low:
            fill: dict[str, Any] = {"step": "post"} if series.kind is Kind.STEP else {}
            axes.fill_between(x, low, high, color=_colour(series.tone, 0.2 if series.is_strong else 0.09), linewidth=0, **fill)
    elif series.kind is Kind.POINTS:
        is_open = series.symbol.endswith("-open")
        face: dict[str, Any] = {"facecolors": "none"} if is_open else {} if marker in {"x"} else {"edgecolors": "white", "linewidths": 0.5}
        axes.scatter(x, y, s=60 if series.is_strong else 26, marker=marker, alpha=1 if series.is_strong else 0.8, **shared, **face)
    elif series.kind is Kind.BARS:
        _draw_bars(axes, plot, series, x, y, shared)
    else:
        for at_x, at_y, text in zip(x, y, series.hover, strict=True):
            axes.text(at_x, at_y, clean(text, 34), ha="center", va="center", fontsize=8, color=_colour(series.tone))
    if low and series.kind in {Kind.POINTS, Kind.BARS}:
        _draw_whiskers(axes, plot, series, x, y)


def _draw_bars(axes: Axes, plot: Plot, series: Series, x: list[Any], y: list[Any], shared: dict[str, Any]) -> None:
    """Draw bars; where they stack or stand beside each other, from what was drawn before follows where."""
    earlier = [other for other in plot.series[: plot.series.index(series)] if other.kind is Kind.BARS]
    n_beside = 1 if plot.is_stacked else sum(other.kind is Kind.BARS for other in plot.series)
    width = 0.7 / n_beside
    shift = 0.0 if plot.is_stacked else (len(earlier) - (n_beside - 1) / 2) * width
    places, lengths = (y, x) if plot.is_sideways else (x, y)
    starts = [0.0] * len(lengths)
    if plot.is_stacked:
        sums: dict[Any, float] = {}
        for other in earlier:
            at, size = (other.y, other.x) if plot.is_sideways else (other.x, other.y)
            for place, value in zip(at, size, strict=True):
                sums[place] = sums.get(place, 0.0) + float(value or 0.0)
        starts = [sums.get(place, 0.0) for place in (series.y if plot.is_sideways else series.x)]
    moved = [place + shift for place in places]
    if plot.is_sideways:
        axes.barh(moved, lengths, height=width, left=starts, **shared)
    else:
        axes.bar(moved, lengths, width=width, bottom=starts, **shared)


def _draw_whiskers(axes: Axes, plot: Plot, series: Series, x: list[Any], y: list[Any]) -> None:
    values = x if plot.is_sideways else y
    ends = zip(values, series.low, series.high, strict=True)
    spans = [(math.nan, math.nan) if low is None or high is None else (max(v - low, 0.0), max(high - v, 0.0)) for v, low, high in ends]
    error = [[below for below, _ in spans], [above for _, above in spans]]
    tone = Tone.INK if series.kind is Kind.BARS else series.tone
    which: dict[str, Any] = {"xerr" if plot.is_sideways else "yerr": error}
    axes.errorbar(x, y, fmt="none", ecolor=_colour(tone), elinewidth=1.0, capsize=2.5, zorder=2, **which)


def _style(axes: Axes, plot: Plot) -> None:
    for side in ("top", "right") if plot.has_frame else ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_colour(Tone.FAINT))
    axes.tick_params(colors=_colour("text"), length=0)
    if plot.has_frame:
        axes.grid(True, color=_colour("grid"), linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(clean(plot.title, 100), loc="left", fontsize=11, fontweight="bold", color=_colour("text"))
    axes.set_xlabel(clean(plot.x_title, 90), color=_colour("text"))
    axes.set_ylabel(clean(plot.y_title, 90), color=_colour("text"))


def _finish(axes: Axes, plot: Plot) -> None:
    """Set scales, ticks and legend, once everything is drawn."""
    from matplotlib.ticker import PercentFormatter

    for which, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        labels, ticks, ends = _labels(plot, which), getattr(plot, f"{which}_ticks"), getattr(plot, f"{which}_range")
        set_scale, set_ticks = getattr(axes, f"set_{which}scale"), getattr(axes, f"set_{which}ticks")
        if getattr(plot, f"{which}_is_log"):
            set_scale("log")
        if labels:
            set_ticks(range(len(labels)), [label[:34] for label in labels])
            axis.grid(False)
        elif ticks:
            set_ticks([at for at, _ in ticks], [clean(label, 34) for _, label in ticks])
        elif not plot.has_frame:
            set_ticks([])
        elif getattr(plot, f"{which}_is_percent"):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if ends is not None:
            getattr(axes, f"set_{which}lim")(*ends)
    if _labels(plot, "y"):
        axes.invert_yaxis()
    if plot.has_diagonal:
        low, high = plot.x_range or (0.0, 1.0)
        axes.plot([low, high], [low, high], linestyle="--", linewidth=1, color=_colour(Tone.MUTED), zorder=1)
    handles, names = axes.get_legend_handles_labels()
    kept = dict(zip(names, handles, strict=True))
    if 1 < len(kept) <= _MAX_LEGEND:
        axes.legend(
            kept.values(), kept.keys(), fontsize=8.5, frameon=False, ncols=min(len(kept), 4), loc="lower left", bbox_to_anchor=(0, 1.06)
        )
