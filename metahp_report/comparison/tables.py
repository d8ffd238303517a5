"""The figures of a live comparison in full, task by task, and what each method cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from metahp_report.comparison.records import ComparisonResult, Spread, TaskInfo, TaskMethodSummary
from metahp_report.parts import Kind, Part, Plot, Prose, Section, Series, Table, Tone
from metahp_report.wording import NOTHING, clean, show_duration, show_energy, show_number, show_share
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.names import canonical_name


def table_section(result: ComparisonResult) -> Section:
    """Show every figure of each task and method."""
    about = (
        "Mean over seeds ± standard deviation. The validation split chooses; the test split was looked at once, with the model chosen. "
        "Near the best: within 1 % of the best any method found with the same seed."
    )
    parts: list[Part] = []
    for task in result.plan.tasks:
        lines = [summary for summary in result.summaries if summary.task == task]
        if lines:
            parts += [_quality(result.tasks[task], lines, result.plan.seeds), _effort(task, lines, result.plan.seeds)]
            errors = _errors(task, lines)
            parts += [errors] if errors is not None else []
    return Section("All figures", about, tuple(parts) or (Prose("Nothing has been trained yet."),))


def show_spread(spread: Spread) -> str:
    """Write a figure over seeds as ``0.81 ± 0.02``; the spread only where there are several seeds."""
    if spread.mean is None:
        return NOTHING
    sd = spread.sd or 0.0
    if spread.n < 2 or sd <= 1e-9 * max(abs(spread.mean), 1e-300):
        return show_number(spread.mean)
    # as many decimals as two digits of the spread have: more would claim what nobody knows
    decimals = min(max(1 - math.floor(math.log10(sd)), 0), 12)
    return f"{spread.mean:.{decimals}f} ± {sd:.{decimals}f}"


def _best_rows(values: list[float | None], direction: str) -> set[int]:
    known = [value for value in values if value is not None]
    wanted = (min if direction == "min" else max)(known) if known else None
    return {row for row, value in enumerate(values) if value is not None and value == wanted}


def _quality(info: TaskInfo, lines: list[TaskMethodSummary], n_seeds: int) -> Table:
    from store.names import Direction, infer_direction

    figures: list[tuple[str, list[Spread], str]] = [
        (f"best {info.objective}", [line.best for line in lines], info.direction),
        (f"final {info.objective}", [line.final for line in lines], info.direction),
        ("in equal time", [line.best_at_common_seconds for line in lines], info.direction),
    ]
    for metric in info.metrics:
        spreads = [line.test.get(metric, Spread(None, None, 0)) for line in lines]
        direction = info.direction if metric == info.objective else str(infer_direction(metric) or Direction.MAX)
        figures.append((f"test {metric}", spreads, direction))
    marked = [_best_rows([spread.mean for spread in spreads], direction) for _, spreads, direction in figures]
    rows = tuple((line.method, *(show_spread(spreads[row]) for _, spreads, _ in figures)) for row, line in enumerate(lines))
    best = tuple(frozenset(1 + column for column, rows_ in enumerate(marked) if row in rows_) for row in range(len(lines)))
    note = (
        "Best: of any epoch of any evaluation. Final: of the chosen configuration at the end of its training. "
        "In equal time: final after as many seconds as every method had."
    )
    few = [f"{clean(line.method)} ({line.final.n})" for line in lines if line.final.n < n_seeds]
    note += f" Fewer than {n_seeds} seeds: {', '.join(few)}." if few else ""
    return Table(f"{clean(info.name)}: what was found", ("method", *(name for name, _, _ in figures)), rows, best, note)


def _effort(task: str, lines: list[TaskMethodSummary], n_seeds: int) -> Table:
    baselines = list(dict.fromkeys(name for line in lines for name in line.reduction))
    has_gpu = any(line.gpu_hours.mean for line in lines)
    columns = ("method", "evaluations", "near the best after", "in time", "seeds near it", "whole search", "decisions")
    columns += (*(f"saved against {name}" for name in baselines), "CPU hours", *(("GPU hours", "GPU busy") if has_gpu else ()), "energy")
    rows = []
    for line in lines:
        n_failed = line.failed.mean or 0.0
        cells = [line.method, _count(line.evaluations.mean) + (f" ({_count(n_failed)} failed)" if n_failed else "")]
        cells += [_mean(line.convergence_evaluations, _count), _mean(line.convergence_s, show_duration), f"{line.n_converged} of {n_seeds}"]
        cells += [_mean(line.seconds, show_duration), _mean(line.decision_s, show_duration)]
        cells += [_mean(line.reduction[name], _saved, "never") if name in line.reduction else NOTHING for name in baselines]
        cells += [_mean(line.cpu_hours, _hours)]
        cells += [_mean(line.gpu_hours, _hours), _mean(line.gpu_percent, lambda value: f"{value:.0f} %")] if has_gpu else []
        cells += [_mean(line.energy_j, show_energy, "not measured")]
        rows.append(tuple(cells))
    sources = {line.energy_source for line in lines if line.energy_j.mean is not None}
    note = f"Energy from: {', '.join(sorted(sources))}." if sources else "Energy was not measured: no counter could be read."
    note += " No GPU was used." if not has_gpu else ""
    note += " Saved: share of time until as good as the best of that method, 1 % tolerated; negative where it took longer, "
    note += "never where it was never as good."
    return Table(f"{clean(task)}: what it took", columns, tuple(rows), note=note)


def _mean(spread: Spread, show: Callable[[float], str], otherwise: str = NOTHING) -> str:
    return otherwise if spread.mean is None else show(spread.mean)


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _hours(value: float) -> str:
    return f"{value:.3g}"


def _saved(share: float) -> str:
    return f"{share:.0%}".replace("%", " %").replace("-", "\u2212")


def _errors(task: str, lines: list[TaskMethodSummary]) -> Table | None:
    names = list(dict.fromkeys(name for line in lines for name in (*line.first_error, *line.chosen_error)))
    if not names:
        return None

    def cells(found: Mapping[str, Spread]) -> list[str]:
        return [show_spread(found[name]) if name in found else NOTHING for name in names]

    rows = tuple((line.method, *cells(line.first_error), *cells(line.chosen_error)) for line in lines)
    columns = ("method", *(f"first {_unit(name)}" for name in names), *(f"chosen {_unit(name)}" for name in names))
    note = (
        "How far the first configuration, and the one chosen in the end, are from the best any method found with the same seed; 0 is the "
        "same. Labels: 1 for another one."
    )
    return Table(f"{clean(task)}: how close to the best hyperparameters", columns, rows, note=note)


def _unit(name: str) -> str:
    scale = {"learning_rate": "log10 ", PER_DEVICE_BATCH_SIZE: "log2 ", GLOBAL_BATCH_SIZE: "log2 "}.get(canonical_name(name), "")
    return f"{scale}{clean(name, 30)}"


def cost_section(result: ComparisonResult) -> Section:
    """Show time and energy by method."""
    about = "Mean over seeds, summed over tasks. Energy is read from a counter; where none could be read nothing is estimated."
    parts: list[Part] = []
    methods = [method for method in result.plan.methods if any(summary.method == method for summary in result.summaries)]
    if not methods:
        return Section("Cost and energy", about, ())
    parts.append(_bars(result, methods, "cost-time", "Time of the searches", "minutes", lambda summary: summary.seconds, 60.0))
    if any(summary.energy_j.mean is not None for summary in result.summaries):
        parts.append(
            _bars(result, methods, "cost-energy", "Energy of the searches", "kilojoules", lambda summary: summary.energy_j, 1000.0)
        )
        sources = sorted({summary.energy_source for summary in result.summaries if summary.energy_j.mean is not None})
        parts.append(Prose(f"Energy from: {', '.join(sources)}."))
    else:
        parts.append(Prose("Energy was not measured: no run found a counter it could read (NVIDIA's, or RAPL of the processor)."))
    decision = [sum(s.decision_s.mean or 0.0 for s in result.summaries if s.method == m) for m in methods]
    total = [sum(s.seconds.mean or 0.0 for s in result.summaries if s.method == m) for m in methods]
    rows = tuple(
        (method, show_duration(own), show_duration(all_), show_share(own / all_) if all_ else NOTHING)
        for method, own, all_ in zip(methods, decision, total, strict=True)
    )
    parts.append(Table("What deciding costs", ("method", "decisions", "whole search", "share"), rows))
    return Section("Cost and energy", about, tuple(parts))


def _bars(
    result: ComparisonResult,
    methods: list[str],
    name: str,
    title: str,
    unit: str,
    figure: Callable[[TaskMethodSummary], Spread],
    size: float,
) -> Plot:
    tones = (Tone.BLUE, Tone.ORANGE, Tone.GREEN, Tone.PURPLE, Tone.RED, Tone.SKY, Tone.OLIVE, Tone.MUTED)
    series = []
    for place, task in enumerate(result.plan.tasks):
        found = [result.summary(task, method) for method in methods]
        values = [None if line is None or (mean := figure(line).mean) is None else mean / size for line in found]
        hover = [f"{clean(method)}, {clean(task)}: {show_number(value)} {unit}" for method, value in zip(methods, values, strict=True)]
        series.append(Series(task, [value or 0.0 for value in values], methods, Kind.BARS, tones[place % len(tones)], hover=hover))
    return Plot(name, title, tuple(series), x_title=unit, is_sideways=True, is_stacked=True, height=150 + 28 * len(methods))
