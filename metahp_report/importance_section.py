"""Which hyperparameters mattered, and where the good values lie: shares of variance and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from metahp_report.facts import Facts, TaskFacts
from metahp_report.importance import MIN_RUNS_EXPLAINED, ValueColumn, columns, importances, mean_importances
from metahp_report.parts import Gallery, Kind, Part, Plot, Prose, Section, Series, Tone, slugs
from metahp_report.runs_section import MAX_TASKS
from metahp_report.wording import clean, count, show_number, show_share, show_value

MAX_AXES = 8
MAX_LINES = 300
_TOP_SHARE = 0.1
_TICKED_LABELS = 6


def task_importances(facts: Facts) -> dict[int, dict[str, float]]:
    """Return for each task with pictures of its own the share of each hyperparameter; index of the task -> name -> share."""
    found: dict[int, dict[str, float]] = {}
    for index, task in enumerate(facts.tasks):
        if len(found) < MAX_TASKS and task.objective:
            shares = importances([run.hparams for run in task.runs], task.rank, task.names)
            if shares:
                found[index] = shares
    return found


def ordered_names(facts: Facts, shares: Mapping[int, Mapping[str, float]]) -> dict[int, list[str]]:
    """Return for each task its hyperparameters, those that mattered first."""
    return {i: [*shares.get(i, {}), *(name for name in task.names if name not in shares.get(i, {}))] for i, task in enumerate(facts.tasks)}


def importance_section(facts: Facts, shares: Mapping[int, Mapping[str, float]]) -> Section:
    """Show the share of each hyperparameter in what decided how runs stand."""
    about = (
        "How much of the difference between the runs of a task goes back to each hyperparameter (functional analysis of variance "
        "of the runs' ranks). Only what was varied can matter here, and only within the values that were tried."
    )
    if not facts.n_runs:
        return Section("What mattered", "", ())
    parts: list[Part] = []
    if not shares:
        parts.append(Prose(f"No task has {MIN_RUNS_EXPLAINED} judged runs with different hyperparameters yet, so nothing can be said."))
    else:
        tasks = [(facts.tasks[index], found) for index, found in shares.items()]
        plots = [("Mean over tasks", _mean_plot([found for _, found in tasks]))] if len(tasks) > 1 else []
        names = slugs([task.name for task, _ in tasks])
        plots += [
            (f"{task.name} ({task.objective})", _task_plot(task, found, name)) for (task, found), name in zip(tasks, names, strict=True)
        ]
        parts.append(Gallery("Task", tuple(plots)))
    lines = []
    candidates = [(i, task) for i, task in enumerate(facts.tasks) if task.objective and task.names and task.best is not None][:MAX_TASKS]
    for (index, task), name in zip(candidates, slugs([task.name for _, task in candidates]), strict=True):
        plot = parallel_plot(task, list(shares.get(index, {})) or list(task.names), name)
        if plot is not None:
            lines.append((f"{task.name} ({task.objective})", plot))
    if lines:
        parts.append(Gallery("Task", tuple(lines)))
    return Section("Which hyperparameters mattered", about, tuple(parts))


def _mean_plot(found: Sequence[Mapping[str, float]]) -> Plot:
    means = list(mean_importances(found).items())[: MAX_AXES + 4]
    series = [
        Series(
            "mean over tasks",
            [mean for _, (mean, _) in means],
            [name for name, _ in means],
            Kind.BARS,
            Tone.BLUE,
            hover=[f"{clean(name)}: {show_share(mean)}, mean over {count(n, 'task')}" for name, (mean, n) in means],
        )
    ]
    xs = [(shares[name], name) for shares in found for name, _ in means if name in shares]
    points = Series("single tasks", [x for x, _ in xs], [name for _, name in xs], Kind.POINTS, Tone.INK, symbol="circle-open")
    return _share_plot("importance", "Share in what decided between runs, mean over tasks", (*series, points), len(means))


def _task_plot(task: TaskFacts, shares: Mapping[str, float], name: str) -> Plot:
    n = int((~np.isnan(task.rank)).sum())
    return bar_plot(f"importance-{name}", f"Share in what decided between {count(n, 'run')} of {clean(task.name)}", shares)


def bar_plot(name: str, title: str, shares: Mapping[str, float]) -> Plot:
    """Draw shares as bars, a hyperparameter each."""
    hover = [f"{clean(key)}: {show_share(share)}" for key, share in shares.items()]
    series = Series("share", list(shares.values()), list(shares), Kind.BARS, Tone.BLUE, hover=hover, in_legend=False)
    return _share_plot(name, title, (series,), len(shares))


def _share_plot(name: str, title: str, series: tuple[Series, ...], n: int) -> Plot:
    return Plot(
        name,
        title,
        series,
        x_title="share of the variance of ranks",
        x_is_percent=True,
        x_range=(0.0, 1.0),
        is_sideways=True,
        height=130 + 30 * n,
    )


def parallel_plot(task: TaskFacts, names: Sequence[str], name: str) -> Plot | None:
    """Draw each run as a line through the values of its hyperparameters to its result, the best on top.

    Args:
        task: The task.
        names: Hyperparameters, those that mattered first.
        name: Ending of the picture's name.

    Returns:
        The picture, None where fewer than two runs can be drawn.
    """
    judged = [i for i in range(len(task)) if not math.isnan(task.rank[i]) and np.isfinite(task.values[i])]
    order = sorted(judged, key=lambda i: task.rank[i])
    n_top = max(1, math.ceil(_TOP_SHARE * len(order)))
    rest, top = order[:-n_top], order[-n_top:]
    if len(rest) > MAX_LINES - len(top):
        top = top[-MAX_LINES // 3 :]
        rest = [rest[int(k)] for k in np.linspace(0, len(rest) - 1, MAX_LINES - len(top))]
    drawn = rest + top
    if len(drawn) < 2:
        return None
    by_name = {column.name: column for column in columns([task.runs[i].hparams for i in drawn], names)}
    axes = [by_name[key] for key in names if key in by_name][:MAX_AXES]
    if not axes:
        return None
    axes.append(ValueColumn(task.objective, tuple(float(task.values[i]) for i in drawn)))
    height = np.array([column.position() for column in axes])
    if task.direction == "min":
        height[-1] = 1 - height[-1]  # good is up on the last axis
    n_middle = len(rest) // 2
    groups = (
        ("worse half", range(n_middle), Tone.FAINT),
        ("better half", range(n_middle, len(rest)), Tone.SKY),
        (f"best {_TOP_SHARE:.0%}".replace("%", " %"), range(len(rest), len(drawn)), Tone.ORANGE),
    )
    series = [_lines(task, drawn, axes, height, label, rows, tone) for label, rows, tone in groups if len(rows)]
    n_left = len(judged) - len(drawn)
    return Plot(
        f"parallel-{name}",
        f"Where the good values of {clean(task.name)} lie",
        (
            _rules(len(axes)),
            *(_scale(column, at, is_turned=at == len(axes) - 1 and task.direction == "min") for at, column in enumerate(axes)),
            *series,
        ),
        x_ticks=tuple((float(at), f"{clean(column.name, 26)}{' (log)' if column.is_log else ''}") for at, column in enumerate(axes)),
        x_range=(-0.4, len(axes) - 0.6),
        y_range=(-0.1, 1.1),
        has_frame=False,
        note=(f"{n_left:,} of {len(judged):,} runs are not drawn. " if n_left else "")
        + "A run is a line; the last axis is its result, good is up. "
        "A click on the legend hides a group.",
        height=440,
    )


def _lines(
    task: TaskFacts, drawn: Sequence[int], axes: Sequence[ValueColumn], height: np.ndarray, label: str, rows: range, tone: Tone
) -> Series:
    """Return the lines of a group of runs as one series, with a gap after each."""
    x: list[float | None] = []
    y: list[float | None] = []
    hover: list[str] = []
    for row in rows:
        run = task.runs[drawn[row]]
        for at, column in enumerate(axes):
            x.append(float(at))
            y.append(None if math.isnan(height[at, row]) else float(height[at, row]))
            result = f"{clean(task.objective)} {show_number(float(task.values[drawn[row]]))}"
            hover.append(f"{clean(column.name)} {show_value(column.values[row])}\n{result}, run {run.id[-8:]}")
        x.append(None)
        y.append(None)
        hover.append("")
    return Series(label, x, y, Kind.LINE, tone, hover=hover)


def _rules(n: int) -> Series:
    """Return the upright axes."""
    x = [at for place in range(n) for at in (float(place), float(place), None)]
    return Series("axes", x, [0.0, 1.0, None] * n, Kind.LINE, Tone.MUTED, hover=[""] * (3 * n), in_legend=False)


def _scale(column: ValueColumn, at: int, *, is_turned: bool) -> Series:
    """Return the values written along an axis."""
    if column.labels:
        chosen = column.labels if len(column.labels) <= _TICKED_LABELS else (column.labels[0], column.labels[-1])
        top = max(len(column.labels) - 1, 1)
        ticks = [(column.labels.index(label) / top, clean(label, 14)) for label in chosen]
    else:
        known = [float(value) for value in column.values if value is not None]
        low, high = min(known), max(known)
        ticks = [(0.0, show_number(low)), (1.0, show_number(high))]
    # ends stand outside, where no line crosses them
    places = [-0.05 if place == 0 else 1.05 if place == 1 else place for place, _ in ticks]
    if is_turned:
        places = [1 - place for place in places]
    return Series("scale", [float(at)] * len(ticks), places, Kind.TEXT, Tone.INK, hover=[label for _, label in ticks], in_legend=False)
