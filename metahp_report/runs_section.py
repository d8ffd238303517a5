"""What was trained: runs over time, the best of each task, learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from metahp_report.facts import BROKEN, OPEN, Facts, TaskFacts
from metahp_report.parts import Gallery, Kind, Part, Plot, Prose, Section, Series, Table, Tone, slugs
from metahp_report.wording import NOTHING, clean, count, moment, show_config, show_duration, show_number
from store.repeats import best_configuration, describe_draws, pooled

if TYPE_CHECKING:
    from store import History

_Item = TypeVar("_Item")

MAX_TASKS = 12
"""Tasks with pictures of their own; all are in the table, up to ``MAX_BEST_ROWS``."""
MAX_BEST_ROWS = 60
MAX_MARKS = 2000
MAX_MARKS_OF_TASK = 800
MAX_CURVES = 24
MAX_CURVE_POINTS = 200
_TOP_CURVES = 8
BROKEN_WORD = "diverged or failed"


def runs_section(facts: Facts, names: Mapping[int, Sequence[str]]) -> Section:
    """Show runs over time and what each task has come to.

    Args:
        facts: What the history holds.
        names: Index of a task -> its hyperparameters, those that mattered first.
    """
    judged = [task for task in facts.tasks if task.objective and task.best is not None]
    if not facts.n_runs:
        return Section("Runs", "", ())
    parts: list[Part] = []
    plots = [("All tasks", _all_tasks(facts))]
    shown = judged[:MAX_TASKS]
    for task, name in zip(shown, slugs([task.name for task in shown]), strict=True):
        plots.append((f"{task.name} ({task.objective})", _one_task(task, name)))
    if any(len(plot.series) for _, plot in plots):
        parts.append(Gallery("Task", tuple(plots), _left_out(len(judged), "tasks with pictures of their own")))
    parts.append(_best_table(facts, judged, names))
    about = "Each mark is a run. The line follows the best result so far: where it still rises, tuning still pays."
    return Section("Runs and the best of each task", about, tuple(parts))


def _left_out(n: int, what: str) -> str:
    return f"The {MAX_TASKS} {what} are those with the most runs; {n - MAX_TASKS} more are in the table." if n > MAX_TASKS else ""


def _all_tasks(facts: Facts) -> Plot:
    """Draw how each run stands within its task against when it started."""
    marks = [
        (start, float(rank), bool(is_recommended), _hover(task, i))
        for task in facts.tasks
        for i, (run, rank, is_recommended) in enumerate(zip(task.runs, task.rank, task.is_recommended, strict=True))
        if not math.isnan(rank) and run.status not in BROKEN and (start := moment(run.started_utc)) is not None
    ]
    kept = _thinned(marks, MAX_MARKS, [mark[2] for mark in marks])
    series = []
    for is_recommended, label, tone, symbol in (
        (False, "your own choice", Tone.BLUE, "circle"),
        (True, "recommended", Tone.ORANGE, "diamond"),
    ):
        chosen = [mark for mark in kept if mark[2] is is_recommended]
        if chosen:
            x, y, _, hover = zip(*chosen, strict=True)
            series.append(Series(label, x, y, Kind.POINTS, tone, hover=hover, symbol=symbol))
    all_broken = [
        (moment(run.started_utc), _hover(task, i)) for task in facts.tasks for i, run in enumerate(task.runs) if run.status in BROKEN
    ]
    broken = _thinned([mark for mark in all_broken if mark[0] is not None], MAX_MARKS // 4)
    if broken:
        x, hover = zip(*broken, strict=True)
        series.append(Series(BROKEN_WORD, x, [-0.06] * len(x), Kind.POINTS, Tone.MUTED, hover=hover, symbol="x"))
    n_left = len(marks) - len(kept)
    return Plot(
        "runs-over-time",
        "How runs stand within their task",
        tuple(series),
        x_title="start of the run (UTC)",
        y_title="better than ... of the task's runs",
        y_is_percent=True,
        y_range=(-0.12, 1.06),
        y_ticks=((0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 %")),
        note=f"{n_left:,} of {len(marks):,} runs are not drawn, evenly over time; every recommended one is, up to {MAX_MARKS:,}."
        if n_left
        else "",
        height=400,
    )


def _one_task(task: TaskFacts, name: str) -> Plot:
    """Draw a task's objective over time, with the best so far."""
    starts = [moment(run.started_utc) for run in task.runs]
    order = [i for i in range(len(task)) if np.isfinite(task.values[i]) and starts[i] is not None]
    best, path = -math.inf, []
    improves = set()
    for i in order:
        if task.sign * task.values[i] > best:
            best = float(task.sign * task.values[i])
            improves.add(i)
        path.append((starts[i], task.sign * best))
    # steps change only where the best does, so the line needs no other points
    steps = [point for i, point in zip(order, path, strict=True) if i in improves] + path[-1:]
    kept = _thinned(order, MAX_MARKS_OF_TASK, [bool(task.is_recommended[i]) or i in improves for i in order])
    series = [Series("best so far", [x for x, _ in steps], [y for _, y in steps], Kind.STEP, Tone.INK)]
    for is_recommended, label, tone, symbol in (
        (False, "your own choice", Tone.BLUE, "circle"),
        (True, "recommended", Tone.ORANGE, "diamond"),
    ):
        chosen = [i for i in kept if bool(task.is_recommended[i]) is is_recommended]
        if chosen:
            x, y = [starts[i] for i in chosen], [float(task.values[i]) for i in chosen]
            series.append(Series(label, x, y, Kind.POINTS, tone, hover=[_hover(task, i) for i in chosen], symbol=symbol))
    n_left, n_broken = len(order) - len(kept), sum(run.status in BROKEN for run in task.runs)
    notes = [f"{n_left:,} of {len(order):,} runs are not drawn, evenly over time; every improvement is."] if n_left else []
    notes += [f"{count(n_broken, 'run')} without a value ({BROKEN_WORD}) not drawn."] if n_broken else []
    return Plot(
        f"runs-over-time-{name}",
        f"{clean(task.objective)} of each run of {clean(task.name)}, {'lower' if task.direction == 'min' else 'higher'} is better",
        tuple(series),
        x_title="start of the run (UTC)",
        y_title=task.objective,
        note=" ".join(notes),
        height=400,
    )


def _thinned(items: Sequence[_Item], most: int, is_kept: Sequence[bool] = ()) -> list[_Item]:
    """Return at most so many items, evenly spread, those to be kept before all others, in their order."""
    if len(items) <= most:
        return list(items)
    wanted = [i for i, keep in enumerate(is_kept) if keep]
    others = [i for i in range(len(items)) if i not in set(wanted)] if wanted else list(range(len(items)))
    wanted = _evenly(wanted, most)
    return [items[i] for i in sorted(wanted + _evenly(others, most - len(wanted)))]


def _evenly(places: list[int], most: int) -> list[int]:
    if len(places) <= most:
        return places
    return [places[int(i)] for i in np.linspace(0, len(places) - 1, most)] if most > 0 else []


def _hover(task: TaskFacts, i: int) -> str:
    run = task.runs[i]
    value = f"{clean(task.objective)} {show_number(float(task.values[i]))}" if np.isfinite(task.values[i]) else str(run.status)
    lines = [f"{clean(task.name)}: {value}", f"run {run.id}" + (", recommended" if task.is_recommended[i] else "")]
    config = show_config(run.hparams, task.names, most=5)
    return "\n".join([*lines, config] if config else lines)


def _best_table(facts: Facts, judged: Sequence[TaskFacts], names: Mapping[int, Sequence[str]]) -> Table:
    rows = []
    has_repeats = False
    for task in judged[:MAX_BEST_ROWS]:
        i, best = task.best, ""
        if i is None:
            continue
        draws = pooled(task.runs)
        top = best_configuration(draws)
        if top is not None and any(len(item.runs) > 1 for item in draws):
            best, has_repeats = describe_draws(top), True
            i = next(j for j, run in enumerate(task.runs) if run is top.best_run())
        run = task.runs[i]
        known = task.values[np.isfinite(task.values)]
        order = names.get(facts.tasks.index(task), task.names)
        rows.append(
            (
                clean(task.name),
                f"{clean(task.objective, 30)} ({task.direction})",
                f"{len(task):,}",
                show_number(float(known[0])),
                show_number(float(np.median(known))),
                best or show_number(float(task.values[i])),
                "recommended" if task.is_recommended[i] else "yours",
                show_config(run.hparams, order, most=4) or "nothing varied",
                run.id[-8:],
            )
        )
    more = f"{len(judged) - MAX_BEST_ROWS} tasks with fewer runs are left out. " if len(judged) > MAX_BEST_ROWS else ""
    if len({task.task_id for task in judged}) < len(judged):
        more += "Runs of a task that mean different things by the objective are rows of their own. "
    without = len(facts.tasks) - len(judged)
    if has_repeats:
        more += "Where configurations were run more than once, the best is the one with the best mean, with the standard deviation. "
    more += f"{count(without, 'group')} of runs without a value of an objective not listed. " if without else ""
    return Table(
        "The best run of each task",
        ("task", "objective", "runs", "first", "median", "best", "chosen by", "with", "run"),
        tuple(rows),
        note=f"{more}metahp show RUN prints everything about a run; the end of its id is enough.",
        is_text=frozenset({1, 6, 7, 8}),
        best=tuple(frozenset({5}) for _ in rows),
    )


def curves_section(history: History, facts: Facts) -> Section:
    """Show how the objective developed during runs: the best ones, and others spread over the ranking."""
    plots = []
    judged = [task for task in facts.tasks if task.objective and task.best is not None]
    for task, name in zip(judged[:MAX_TASKS], slugs([task.name for task in judged[:MAX_TASKS]]), strict=True):
        plot = _curves(history, task, name)
        if plot is not None:
            plots.append((f"{task.name} ({task.objective})", plot))
    about = "The objective while runs went on. A recommended run is orange, the best run of the task is drawn strong."
    parts: tuple[Part, ...] = (Gallery("Task", tuple(plots), _left_out(len(judged), "tasks shown")),) if plots else ()
    if facts.n_runs and judged and not plots:
        parts = (Prose("No run logged its objective more than once, so there is nothing to draw."),)
    return Section("Learning curves", about, parts)


def _curves(history: History, task: TaskFacts, name: str) -> Plot | None:
    ranked = sorted((i for i in range(len(task)) if not math.isnan(task.rank[i])), key=lambda i: -task.rank[i])
    ranked += [i for i, run in enumerate(task.runs) if run.status in OPEN]
    chosen = ranked[:_TOP_CURVES] + [
        ranked[_TOP_CURVES:][i] for i in _evenly(list(range(len(ranked) - _TOP_CURVES)), MAX_CURVES - _TOP_CURVES)
    ]
    drawn, uses_epochs = [], True
    for i in chosen:
        logged = history.metrics(task.runs[i].id, task.runs[i].objective)
        if len(logged) > 1:
            newest = [metric for metric in logged if metric.attempt == logged[-1].attempt]
            drawn.append((i, newest if len(newest) > 1 else logged))
            uses_epochs = uses_epochs and all(metric.epoch is not None for metric in logged)
    if not drawn:
        return None
    series, named = [], set()
    for i, logged in reversed(drawn):  # the best on top
        points = [logged[k] for k in _evenly(list(range(len(logged))), MAX_CURVE_POINTS)]
        is_best = i == task.best
        tone, label = (Tone.ORANGE, "recommended") if task.is_recommended[i] else (Tone.BLUE, "your own choice")
        if math.isnan(task.rank[i]):
            tone, label = Tone.GREEN, "still running"
        elif task.rank[i] < 0.5 and not task.is_recommended[i]:
            tone, label = Tone.FAINT, "worse half of the task's runs"
        x = [metric.epoch if uses_epochs else metric.step for metric in points]
        y = [metric.value if math.isfinite(metric.value) else None for metric in points]
        series.append(Series(label, x, y, Kind.LINE, tone, hover=[_hover(task, i)], is_strong=is_best, in_legend=label not in named))
        named.add(label)
    n_left = sum(not math.isnan(place) for place in task.rank) - len(drawn)
    return Plot(
        f"learning-curves-{name}",
        f"{clean(task.objective)} during runs of {clean(task.name)}",
        tuple(series),
        x_title="epoch" if uses_epochs else "step",
        y_title=task.objective,
        note=f"{count(len(drawn), 'run')}: the best {_TOP_CURVES} and others evenly over the ranking; {n_left:,} more not drawn."
        if n_left > 0
        else "",
        height=400,
    )


def time_span(facts: Facts) -> str:
    """Say from when to when runs were started."""
    starts = sorted(run.started_utc[:10] for run in facts.runs() if run.started_utc and run.started_utc[:4] != "1970")
    if not starts:
        return ""
    return starts[0] if starts[0] == starts[-1] else f"{starts[0]} to {starts[-1]}"


def total_time(facts: Facts) -> str:
    """Say how long all runs took together."""
    known = [run.wall_s for run in facts.runs() if run.wall_s is not None]
    return show_duration(sum(known)) if known else NOTHING
