"""What the meta-models recommended in a live comparison: against the defaults, against what came out, and what mattered."""

from __future__ import annotations

import math

import numpy as np

from metahp_report.advice_section import held_interval, prediction_plot
from metahp_report.comparison.curves import drawn_last, style, whole_ticks
from metahp_report.comparison.records import ComparisonResult, Evaluation, SearchResult
from metahp_report.comparison.summary import regret_curve
from metahp_report.facts import percentile_ranks, varied_names
from metahp_report.importance import importances, mean_importances
from metahp_report.importance_section import bar_plot
from metahp_report.parts import Gallery, Kind, Part, Plot, Prose, Section, Series, Tone, slugs
from metahp_report.runs_section import MAX_CURVE_POINTS
from metahp_report.wording import clean, count, show_share
from metamodel.kinds import DEFAULT as OURS
from metamodel.recommendation import Unit
from store import History

DEFAULT_METHOD = "default"
MIN_PEERS = 8
"""Evaluations of random configurations that a predicted rank is compared with."""


def regret_at(result: ComparisonResult, task: str, method: str, k: int) -> float | None:
    """Return the mean normalised regret of a method on a task after ``k`` evaluations; None where a seed is missing."""
    found = []
    for seed in range(result.plan.seeds):
        search = result.search(task, method, seed)
        if search is None or not search.evaluations:
            return None
        everyone = [other for other in result.searches if (other.task, other.seed) == (task, seed)]
        found.append(float(regret_curve(search, everyone, result.tasks[task].direction, result.plan.budget)[k - 1]))
    return sum(found) / len(found) if found else None


def advice_section(result: ComparisonResult) -> Section:
    """Show the first and the last recommendation against the defaults, task by task."""
    about = "What a new task gets at once: the libraries' defaults, and the first recommendation, made before any training on the task."
    if OURS not in result.plan.methods or DEFAULT_METHOD not in result.plan.methods:
        return Section("Recommended against default", about, ())
    lines = []
    for task in result.plan.tasks:
        found = [regret_at(result, task, method, k) for method, k in ((DEFAULT_METHOD, 1), (OURS, 1), (OURS, result.plan.budget))]
        known = [value for value in found if value is not None]
        if len(known) == 3:
            lines.append((task, known))
    if not lines:
        return Section("Recommended against default", about, ())
    names = [task for task, _ in lines]
    x = [value for _, known in lines for value in (*known, None)]
    y = [value for task, _ in lines for value in (task, task, task, None)]
    kinds: tuple[tuple[str, int, Tone, str], ...] = (
        ("default", 0, Tone.MUTED, "square"),
        ("first recommendation", 1, Tone.ORANGE, "diamond-open"),
    )
    kinds += ((f"best of {result.plan.budget} recommendations", 2, Tone.ORANGE, "diamond"),)
    series = [Series("span", x, y, Kind.LINE, Tone.FAINT, hover=[""] * len(x), in_legend=False, is_strong=True)]
    for label, place, tone, symbol in kinds:
        values = [known[place] for _, known in lines]
        hover = [f"{clean(name)}, {label}: regret {value:.3f}" for name, value in zip(names, values, strict=True)]
        series.append(Series(label, values, names, Kind.POINTS, tone, hover=hover, symbol=symbol, is_strong=True))
    plot = Plot(
        "recommended",
        "Regret of the defaults and of what was recommended",
        tuple(series),
        x_title="normalised regret, lower is better, mean over seeds",
        x_range=(-0.04, 1.04),
        is_sideways=True,
        height=160 + 36 * len(lines),
    )
    return Section("Recommended against default", about, (plot,))


def importance_section(result: ComparisonResult) -> Section:
    """Show what decided between the trainings of each task, those of all methods together."""
    about = (
        "How much of the difference between the trainings of a task goes back to each hyperparameter (functional analysis of variance of "
        "ranks, over the trainings of all methods). Methods that search well train few bad configurations, so shares depend on them."
    )
    found = {}
    for task in result.plan.tasks:
        configs, rank = _judged(result, task)
        shares = importances(configs, rank, varied_names(configs)) if configs else {}
        if shares:
            found[task] = (shares, int((~np.isnan(rank)).sum()))
    if not found:
        text = "No task has enough trainings with different hyperparameters yet."
        return Section("Which hyperparameters mattered", about, (Prose(text),) if result.searches else ())
    means = mean_importances([shares for shares, _ in found.values()])
    plots = [("Mean over tasks", bar_plot("importance", "Share in what decided, mean over tasks", {n: m for n, (m, _) in means.items()}))]
    for (task, (shares, n)), name in zip(found.items(), slugs(list(found)), strict=True):
        title = f"Share in what decided between {count(n, 'training')} of {clean(task)}"
        plots.append((task, bar_plot(f"importance-{name}", title, shares)))
    return Section("Which hyperparameters mattered", about, (Gallery("Task", tuple(plots[1:] if len(found) == 1 else plots)),))


def _judged(result: ComparisonResult, task: str) -> tuple[list[dict[str, object]], np.ndarray]:
    """Return the configurations of a task and how each stands among those of its seed: splits differ between seeds."""
    sign = -1.0 if result.tasks[task].direction == "min" else 1.0
    configs: list[dict[str, object]] = []
    places = []
    for seed in range(result.plan.seeds):
        done = [item for s in result.searches if (s.task, s.seed) == (task, seed) for item in s.evaluations]
        values = np.array([math.nan if item.value is None else sign * item.value for item in done])
        places.append(percentile_ranks(values, np.isnan(values)))
        configs += [dict(item.config) for item in done]
    return configs, np.concatenate(places) if places else np.zeros(0)


def curves_section(history: History, result: ComparisonResult) -> Section:
    """Show how the chosen model of each method learned, with the first seed."""
    plots = []
    for task, name in zip(result.plan.tasks, slugs(result.plan.tasks), strict=True):
        series = []
        for method in drawn_last(result.plan.methods):
            search = result.search(task, method, 0)
            curve = None if search is None or search.best is None else _curve(history, result, search, search.best)
            series += [curve] if curve is not None else []
        if series:
            info = result.tasks[task]
            title = f"Validation {clean(info.objective)} on {clean(task)} while the chosen configuration was trained"
            y_title = f"validation {info.objective}"
            ends = {x for one in series for x in one.x}
            ticks = whole_ticks(int(max(ends))) if all(x == int(x) for x in ends) and max(ends) >= 1 else ()
            plot = Plot(f"learning-curves-{name}", title, tuple(series), x_title="epoch", y_title=y_title, x_ticks=ticks, height=400)
            plots.append((task, plot))
    about = "One line a method: the training of the configuration it chose in the end, with the first seed."
    return Section("Learning curves", about, (Gallery("Task", tuple(plots)),) if plots else ())


def _curve(history: History, result: ComparisonResult, search: SearchResult, best: Evaluation) -> Series | None:
    objective = history.run(best.run_id).objective
    logged = history.metrics(best.run_id, objective) if objective else []
    if len(logged) < 2:
        return None
    kept = [logged[int(i)] for i in np.linspace(0, len(logged) - 1, min(len(logged), MAX_CURVE_POINTS))]
    x = [metric.step if metric.epoch is None else metric.epoch for metric in kept]
    tone, dash, symbol, is_strong = style(result, search.method)
    config = ", ".join(f"{clean(key)} {value}" for key, value in best.config.items())
    hover = [f"{clean(search.method)}\n{config}"]
    y = [metric.value for metric in kept]
    return Series(search.method, x, y, Kind.LINE, tone, hover=hover, symbol=symbol, dash=dash, is_strong=is_strong)


def calibration_section(result: ComparisonResult) -> Section:
    """Show whether what the meta-models expected came out."""
    about = (
        "A prediction comes with an interval that should hold the outcome four times out of five. "
        "Held more often, it could be narrower; held less often, it promises too much."
    )
    parts: list[Part] = []
    pairs = [(search, item) for search in result.searches for item in search.evaluations if item.prediction is not None]
    for method in dict.fromkeys(search.method for search, _ in pairs):
        mine = [(search, item) for search, item in pairs if search.method == method]
        for unit, words in ((Unit.OBJECTIVE, "in units of the objective"), (Unit.RANK, "in ranks")):
            known = [triple for search, item in mine if (triple := _outcome(result, search, item, unit)) is not None]
            if known:
                parts.append(Prose(_held(method, words, known)))
    plots = []
    for task, name in zip(result.plan.tasks, slugs(result.plan.tasks), strict=True):
        triples = [(s, i, t) for s, i in pairs if s.task == task and (t := _outcome(result, s, i, Unit.OBJECTIVE)) is not None]
        if triples:
            shown = [(*triple, f"{s.method}, seed {s.seed}, evaluation {i.index + 1}") for s, i, triple in triples]
            plots.append((task, prediction_plot(f"predictions-{name}", task, result.tasks[task].objective, shown)))
    parts += [Gallery("Task", tuple(plots))] if plots else []
    return Section("How far predictions can be trusted", about, tuple(parts))


def _outcome(result: ComparisonResult, search: SearchResult, item: Evaluation, unit: Unit) -> tuple[float, float, float, float] | None:
    """Return prediction, ends of its interval and outcome; None where it was made in another unit, or the outcome is unknown."""
    given = item.prediction
    if given is None or given.unit != unit or not math.isfinite(given.value):
        return None
    outcome = item.value if unit is Unit.OBJECTIVE else _rank(result, search, item)
    return None if outcome is None else (given.value, min(given.low, given.high), max(given.low, given.high), outcome)


def _rank(result: ComparisonResult, search: SearchResult, item: Evaluation) -> float | None:
    """Return the share of random configurations that did worse, from the trainings of `random` and `grid` with the same seed."""
    peers = [
        other
        for one in result.searches
        if (one.task, one.seed) == (search.task, search.seed) and one.method in {"random", "grid"}
        for other in one.evaluations
    ]
    if len(peers) < MIN_PEERS or item.value is None:
        return None
    sign = -1.0 if result.tasks[search.task].direction == "min" else 1.0
    worse = [
        1.0 if peer.value is None or sign * peer.value < sign * item.value else 0.5 if peer.value == item.value else 0.0 for peer in peers
    ]
    return sum(worse) / len(worse)


def _held(method: str, words: str, known: list[tuple[float, float, float, float]]) -> str:
    n_held = sum(low <= outcome <= high for _, low, high, outcome in known)
    low, high = held_interval(n_held, len(known))
    return (
        f"{clean(method)}, {words}: {n_held:,} of {count(len(known), 'outcome')} inside the 80 % interval, "
        f"{show_share(n_held / len(known))} (95 % interval {show_share(low)} to {show_share(high)})."
    )
