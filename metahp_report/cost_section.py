"""What it cost: time by task and outcome, CPU and GPU hours, energy with where the figure comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from metahp_report.facts import BROKEN, Facts, TaskFacts
from metahp_report.parts import Kind, Part, Plot, Prose, Section, Series, Table, Tone
from metahp_report.wording import NOTHING, clean, count, listed, show_duration, show_energy, show_share
from store.records import RunRecord, RunStatus

MAX_BARS = 20
MAX_COST_ROWS = 40
_GROUPS: tuple[tuple[str, Tone, Callable[[RunRecord], bool]], ...] = (
    ("finished", Tone.BLUE, lambda run: run.is_finished and run.status not in BROKEN),
    ("diverged, out of memory or failed", Tone.RED, lambda run: run.status in BROKEN),
    ("interrupted or still open", Tone.MUTED, lambda run: not run.is_finished and run.status is not RunStatus.FAILED),
)


def cost_section(facts: Facts) -> Section:
    """Show what all runs cost together."""
    about = (
        "Wall time is the sum over runs. Energy is read from a counter of the device, or from its measured power; "
        "where nothing was measured, nothing is estimated."
    )
    if not facts.n_runs:
        return Section("Cost", "", ())
    parts: list[Part] = []
    times = _time_plot(facts)
    if times is not None:
        parts.append(times)
    table = _cost_table(facts)
    parts.append(table if table is not None else Prose("No run knows how long it took or what it used."))
    return Section("Cost and energy", about, tuple(parts))


def _time_plot(facts: Facts) -> Plot | None:
    hours = []
    for task in facts.tasks:
        spent = [sum((run.wall_s or 0.0) / 3600 for run in task.runs if belongs(run)) for _, _, belongs in _GROUPS]
        if sum(spent) > 0:
            hours.append((task, spent))
    hours.sort(key=lambda item: -sum(item[1]))
    shown = hours[:MAX_BARS]
    if not shown:
        return None
    size, unit = (1.0, "hours") if sum(shown[0][1]) >= 1 else (60.0, "minutes") if sum(shown[0][1]) >= 1 / 60 else (3600.0, "seconds")
    names = _distinct([task for task, _ in shown])
    series = []
    for place, (label, tone, _) in enumerate(_GROUPS):
        values = [spent[place] * size for _, spent in shown]
        if any(values):
            hover = [f"{name}\n{label}: {show_duration(3600 * spent[place])}" for name, (_, spent) in zip(names, shown, strict=True)]
            series.append(Series(label, values, names, Kind.BARS, tone, hover=hover))
    n_left = len(hours) - len(shown)
    return Plot(
        "cost",
        "Training time by task and outcome",
        tuple(series),
        x_title=f"{unit} of wall time",
        is_sideways=True,
        is_stacked=True,
        note=f"{count(n_left, 'task')} with less time not drawn." if n_left else "",
        height=150 + 28 * len(shown),
    )


def _distinct(tasks: list[TaskFacts]) -> list[str]:
    names: list[str] = []
    for task in tasks:
        name = clean(task.name, 36)
        names.append(f"{name} ({clean(task.objective, 20)})" if name in names else name)
    return names


def _cost_table(facts: Facts) -> Table | None:
    rows = [row for task in facts.tasks[:MAX_COST_ROWS] if (row := _cost_row(facts, [task], task.name)) is not None]
    total = _cost_row(facts, list(facts.tasks), "all tasks")
    if total is None:
        return None
    if len(rows) > 1:
        rows.append(total)
    notes = (
        [f"{len(facts.tasks) - MAX_COST_ROWS} tasks with fewer runs are in the last line only."] if len(facts.tasks) > MAX_COST_ROWS else []
    )
    notes += _source_notes(facts)
    columns = ("task", "runs", "wall time", "lost to broken runs", "CPU time", "GPU time", "energy")
    return Table("What each task cost", columns, tuple(rows), note=" ".join(notes))


def _cost_row(facts: Facts, tasks: list[TaskFacts], name: str) -> tuple[str, ...] | None:
    runs = [run for task in tasks for run in task.runs]
    used = [facts.totals[run.id] for run in runs if run.id in facts.totals]
    walls = [(run.wall_s, run.status in BROKEN) for run in runs if run.wall_s is not None]
    cpus = [item.cpu_s for item in used if item.cpu_s is not None]
    gpus = [item.gpu_s for item in used if item.gpu_s is not None]
    joules = [sum(item.energy_j.values()) for item in used if item.energy_j]
    if not walls and not used:
        return None
    wall = sum(seconds for seconds, _ in walls)
    lost = sum(seconds for seconds, is_broken in walls if is_broken)
    return (
        clean(name),
        f"{len(runs):,}",
        _of(show_duration(wall), len(walls), len(runs)) if walls else NOTHING,
        show_share(lost / wall) if wall > 0 else NOTHING,
        _of(show_duration(sum(cpus)), len(cpus), len(runs)) if cpus else NOTHING,
        _of(show_duration(sum(gpus)), len(gpus), len(runs)) if any(gpus) else "none",
        _of(show_energy(sum(joules)), len(joules), len(runs)) if joules else "not measured",
    )


def _of(text: str, n: int, total: int) -> str:
    """Add for how many runs a figure is known, where that is not all of them."""
    return text if n == total else f"{text} ({n:,} of {total:,} runs)"


def _source_notes(facts: Facts) -> list[str]:
    sources: dict[str, set[str]] = defaultdict(set)
    for item in facts.totals.values():
        for device, source in item.energy_sources.items():
            sources[source].add(device)
    if not sources:
        return ["Energy was not measured: no run found a counter it could read (NVIDIA's, or RAPL of the processor)."]
    texts = [f"{source} ({listed(sorted(devices))})" for source, devices in sorted(sources.items())]
    return [f"Energy from: {'; '.join(texts)}. It is what the device used while the run was open, for the run or for others."]


def energy_total(facts: Facts) -> tuple[float | None, int]:
    """Return the joules of all runs, None if nothing was measured, and how many runs they are of."""
    joules = [sum(item.energy_j.values()) for item in facts.totals.values() if item.energy_j]
    return (sum(joules) if joules else None), len(joules)
