"""Who finds good values first: regret, ranks and the metric itself over evaluations and over seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import t as student_t

from metahp_report.comparison.records import ComparisonResult, SearchResult
from metahp_report.parts import DASHES, SEQUENCE, SYMBOLS, Gallery, Kind, Part, Plot, Prose, Section, Series, Table, Tone, slugs
from metahp_report.wording import NOTHING, clean, count, show_number
from metamodel.kinds import DEFAULT as OURS

MAX_CURVE_STEPS = 300
"""Points of a curve over seconds."""
SECONDS_LOG_RATIO = 30.0

PEER_TONES = tuple(tone for tone in SEQUENCE if tone is not Tone.MUTED)
UNINFORMED = {"default": ("dot", "x"), "random": ("dash", "triangle-down")}
"""Methods that know nothing are grey, with these dashes and symbols."""


def style(result: ComparisonResult, method: str) -> tuple[Tone, str, str, bool]:
    """Return tone, dash and symbol of a method, the same in every plot, and whether it stands out, as ours does."""
    if method == OURS:
        return Tone.ORANGE, "solid", "circle", True
    if method in UNINFORMED:
        return (Tone.MUTED, *UNINFORMED[method], False)
    place = [name for name in result.plan.methods if name != OURS and name not in UNINFORMED].index(method)
    return PEER_TONES[place % len(PEER_TONES)], DASHES[place % len(DASHES)], SYMBOLS[1 + place % (len(SYMBOLS) - 1)], False


def drawn_last(methods: Sequence[str]) -> list[str]:
    """Return methods with ours at the end, which is on top."""
    return sorted(methods, key=lambda method: method == OURS)


def standings_section(result: ComparisonResult) -> Section:
    """Show regret and mean ranks over all tasks."""
    about = (
        "Normalised regret: 0 is the best value any method found on a task with the same seed, 1 as bad as half of all trainings or worse. "
        "Bands are 95 % intervals, bootstrapped over tasks."
    )
    if not result.standings:
        text = "No method has finished every task and seed yet, so regret and ranks over all tasks cannot be given."
        return Section("Who finds good values first", about, (Prose(text),))
    parts: list[Part] = [_over_methods(result, "regret"), _over_methods(result, "ranks"), _standings_table(result)]
    return Section("Who finds good values first", about, tuple(parts))


def _over_methods(result: ComparisonResult, what: str) -> Plot:
    by_method = {item.method: item for item in result.standings}
    series = []
    for method in drawn_last(list(by_method)):
        item = by_method[method]
        tone, dash, symbol, is_strong = style(result, method)
        values = item.regret if what == "regret" else item.mean_rank
        ks = list(range(1, len(values) + 1))
        hover = [f"{clean(method)} after {count(k, 'evaluation')}: {value:.3f}" for k, value in zip(ks, values, strict=True)]
        low, high = zip(*item.ci95, strict=True) if what == "regret" and item.ci95 else ((), ())
        series.append(
            Series(method, ks, values, Kind.LINE, tone, low=low, high=high, hover=hover, symbol=symbol, dash=dash, is_strong=is_strong)
        )
    n = len(by_method)
    titles = {
        "regret": ("Mean normalised regret after so many evaluations", "regret, lower is better"),
        "ranks": (f"Mean rank among {n} methods", "rank, 1 is best"),
    }
    return Plot(
        what,
        titles[what][0],
        tuple(series),
        x_title="evaluations",
        y_title=titles[what][1],
        x_ticks=whole_ticks(result.plan.budget),
        note="A method that stops early, as the defaults do after one, keeps what it has." if what == "regret" else "",
        height=420 if what == "regret" else 340,
    )


def _around(series: Sequence[Series]) -> tuple[float, float] | None:
    """Return the range of the lines with a margin: bands of few seeds can be so wide that the lines would be flat."""
    known = [value for one in series for value in one.y if value is not None]
    if not known:
        return None
    margin = 0.18 * (max(known) - min(known)) or 0.05 * abs(max(known)) or 0.05
    return min(known) - margin, max(known) + margin


def whole_ticks(budget: int) -> tuple[tuple[float, str], ...]:
    """Return whole numbers from 1 to a budget, at most a dozen."""
    step = max(1, math.ceil(budget / 12))
    return tuple((float(k), str(k)) for k in sorted({1, *range(step, budget + 1, step)}))


def _standings_table(result: ComparisonResult) -> Table:
    budget = result.plan.budget
    ks = sorted({k for k in (1, 2, 4, 8, 16, 32) if k <= budget} | {budget})
    columns = ("method", *(f"regret after {k}" for k in ks), f"95 % after {budget}", "mean rank", "metahp minus it", "95 %")
    order = sorted(result.standings, key=lambda item: item.regret[-1])
    lowest = [min(item.regret[k - 1] for item in order) for k in ks]
    best_rank = min(item.mean_rank[-1] for item in order)
    rows, best = [], []
    for item in order:
        low, high = item.ci95[-1]
        cells = [item.method, *(f"{item.regret[k - 1]:.3f}" for k in ks), f"{low:.3f} to {high:.3f}", f"{item.mean_rank[-1]:.2f}"]
        if item.difference and item.difference_ci95:
            a, b = item.difference_ci95[-1]
            cells += [f"{item.difference[-1]:+.3f}", f"{a:+.3f} to {b:+.3f}"]
        else:
            cells += [NOTHING, NOTHING]
        rows.append(tuple(cells))
        marked = {1 + place for place, k in enumerate(ks) if item.regret[k - 1] == lowest[place]}
        best.append(frozenset(marked | ({len(ks) + 2} if item.mean_rank[-1] == best_rank else set())))
    return Table(
        f"After {count(budget, 'evaluation')}: {count(len(result.plan.tasks), 'task')} and {count(result.plan.seeds, 'seed')}",
        columns,
        tuple(rows),
        tuple(best),
        note="Metahp minus it: difference of mean regrets, below 0 where metahp is better; 95 % interval bootstrapped over tasks in pairs.",
    )


def tasks_section(result: ComparisonResult) -> Section:
    """Show each task's metric over evaluations and over seconds."""
    tasks = [task for task in result.plan.tasks if any(search.task == task for search in result.searches)]
    names = dict(zip(tasks, slugs(tasks), strict=True))
    evaluations = [(task, _over_evaluations(result, task, names[task])) for task in tasks]
    seconds = [(task, _over_seconds(result, task, names[task])) for task in tasks]
    about = "The best validation value so far, in the task's own units: mean over seeds. " + _band_words(result.plan.seeds)
    parts: tuple[Part, ...] = (Gallery("Task", tuple(evaluations)), Gallery("Task", tuple(seconds))) if tasks else ()
    return Section("Task by task", about, parts)


def _band_words(n_seeds: int) -> str:
    if n_seeds >= 3:
        return "Bands are 95 % intervals of that mean (Student's t)."
    return (
        "Bands reach from the worse to the better seed."
        if n_seeds == 2
        else "One seed: there is no band, and luck and skill cannot be separated."
    )


def _searches(result: ComparisonResult, task: str, method: str) -> list[SearchResult]:
    return [search for search in result.searches if (search.task, search.method) == (task, method) and search.evaluations]


def mean_and_band(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Return the mean over seeds and the ends of its band; None where a seed has no value yet.

    With three seeds and more the band is Student's 95 % interval, with two it reaches from one to the other.
    """
    if not values or any(value is None for value in values):
        return None, None, None
    known = np.array(values, dtype=np.float64)
    mean = float(known.mean())
    if len(known) < 3:
        return mean, float(known.min()), float(known.max())
    half = float(student_t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return mean, mean - half, mean + half


def _over_evaluations(result: ComparisonResult, task: str, name: str) -> Plot:
    info, budget = result.tasks[task], result.plan.budget
    ks = list(range(1, budget + 1))

    def curve(search: SearchResult) -> Callable[[float], float | None]:
        values = search.best_so_far(info.direction)
        return lambda k: values[min(int(k), len(values)) - 1]

    series = _curves(result, task, lambda _: ks, curve, lambda k: count(int(k), "evaluation"), Kind.LINE)
    return Plot(
        f"evaluations-{name}",
        f"{clean(info.objective)} on {clean(task)} after so many evaluations, {'lower' if info.direction == 'min' else 'higher'} is better",
        series,
        x_title="evaluations",
        y_title=f"best validation {info.objective} so far",
        x_ticks=whole_ticks(budget),
        y_range=_around(series),
        height=400,
    )


def _over_seconds(result: ComparisonResult, task: str, name: str) -> Plot:
    info = result.tasks[task]
    mine = [search for search in result.searches if search.task == task and search.evaluations]
    ends = [evaluation.elapsed_s for search in mine for evaluation in search.evaluations]
    last, first = max(ends, default=1.0), min(ends, default=1.0)

    def times(searches: list[SearchResult]) -> list[float]:
        found = sorted({evaluation.elapsed_s for search in searches for evaluation in search.evaluations} | {last})
        return found if len(found) <= MAX_CURVE_STEPS else [found[int(i)] for i in np.linspace(0, len(found) - 1, MAX_CURVE_STEPS)]

    def curve(search: SearchResult) -> Callable[[float], float | None]:
        values = search.best_so_far(info.direction)
        done = [evaluation.elapsed_s for evaluation in search.evaluations]
        return lambda seconds: None if seconds < done[0] else values[int(np.searchsorted(done, seconds, side="right")) - 1]

    series = _curves(result, task, times, curve, lambda seconds: f"{seconds:.0f} s", Kind.STEP)
    return Plot(
        f"seconds-{name}",
        f"{clean(info.objective)} on {clean(task)} after so many seconds, {'lower' if info.direction == 'min' else 'higher'} is better",
        series,
        x_title="seconds of the search, decisions included",
        y_title=f"best validation {info.objective} so far",
        x_is_log=first > 0 and last / first >= SECONDS_LOG_RATIO,
        y_range=_around(series),
        note="A line starts when every seed has its first value, and goes on level where the search has ended.",
        height=400,
    )


def _curves(
    result: ComparisonResult,
    task: str,
    places: Callable[[list[SearchResult]], Sequence[float]],
    curve: Callable[[SearchResult], Callable[[float], float | None]],
    words: Callable[[float], str],
    kind: Kind,
) -> tuple[Series, ...]:
    """Return a line with its band for each method.

    Args:
        result: The comparison.
        task: Name of the task.
        places: From the searches of a method to the x of its line.
        curve: From a search to its value at an x.
        words: How an x is said.
        kind: ``line`` or ``step``.
    """
    found = []
    for method in drawn_last(result.plan.methods):
        searches = _searches(result, task, method)
        if not searches:
            continue
        at = list(places(searches))
        curves = [curve(search) for search in searches]
        rows = [mean_and_band([value(x) for value in curves]) for x in at]
        if all(mean is None for mean, _, _ in rows):
            continue
        mean, low, high = ([row[i] for row in rows] for i in range(3))
        hover = [f"{clean(method)} after {words(x)}: {show_number(y)}" for x, y in zip(at, mean, strict=True)]
        tone, dash, symbol, is_strong = style(result, method)
        has_band = len(searches) > 1
        found.append(
            Series(
                method,
                at,
                mean,
                kind,
                tone,
                low=low if has_band else (),
                high=high if has_band else (),
                hover=hover,
                symbol=symbol if kind is Kind.LINE else "circle",
                dash=dash,
                is_strong=is_strong,
            )
        )
    return tuple(found)
