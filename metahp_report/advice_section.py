"""What recommendations were worth: recommended against own choices, and whether predictions kept what they claimed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta, norm

from metahp_report.facts import BROKEN, AdviceOutcome, Facts, TaskFacts
from metahp_report.parts import DASHES, SEQUENCE, SYMBOLS, Gallery, Kind, Part, Plot, Prose, Section, Series, Table, Tone
from metahp_report.wording import NOTHING, clean, count, show_number, show_share
from metamodel.explanation import show_change
from metamodel.recommendation import Decision, Unit

MAX_CONTESTS = 40
MAX_RECOMMENDATIONS = 12
MAX_PREDICTIONS = 600


@dataclass(frozen=True, slots=True)
class Contest:
    """Recommended runs of a task against its others.

    Attributes:
        name: Name of the task.
        n_own: Judged runs that the user chose.
        n_recommended: Judged runs that followed a recommendation.
        own: Mean rank of the one.
        recommended: Mean rank of the other.
        gap_low: Lower end of a 95 % interval of the difference of the means.
        gap_high: Upper end of it.
    """

    name: str
    n_own: int
    n_recommended: int
    own: float
    recommended: float
    gap_low: float
    gap_high: float

    @property
    def gap(self) -> float:
        """How much further up the recommended runs stand."""
        return self.recommended - self.own


def contests(facts: Facts, seed: int = 0) -> list[Contest]:
    """Compare recommended with own runs in every task that has two of each, those with most recommended runs first."""
    found = []
    for task in facts.tasks:
        is_judged = ~np.isnan(task.rank)
        own = task.rank[is_judged & ~task.is_recommended]
        recommended = task.rank[is_judged & task.is_recommended]
        if task.objective and len(own) >= 2 and len(recommended) >= 2:
            low, high = _gap_interval(own, recommended, seed)
            found.append(Contest(task.name, len(own), len(recommended), float(own.mean()), float(recommended.mean()), low, high))
    return sorted(found, key=lambda item: -item.n_recommended)


def _gap_interval(own: Any, recommended: Any, seed: int, n_draws: int = 2000) -> tuple[float, float]:
    """Return a bootstrapped 95 % interval of the difference of two means."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), (n_draws, len(values)))].mean(axis=1) for values in (recommended, own)]
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    return float(low), float(high)


def advice_section(facts: Facts) -> Section:
    """Show how recommended runs stand against those the user chose."""
    if not facts.n_runs:
        return Section("Recommended", "", ())
    title = "Recommended against your own choices"
    n_applied = sum(bool(flag) for task in facts.tasks for flag in task.is_recommended)
    if not n_applied:
        text = "No run followed a recommendation yet. Add MetaHParams (Lightning) or autoconfig (Hugging Face) to your next run."
        return Section(title, text, (Prose(_abstained(facts)),) if facts.advice else (Prose("There is nothing to compare."),))
    about = (
        "Where the runs of a task stand among each other: 100 % is its best run, 50 % the middle. Later runs know more than earlier ones, "
        "whoever chooses; what a method is worth on equal terms is measured by metahp compare-baselines."
    )
    parts: list[Part] = []
    found = contests(facts)
    if found:
        parts.append(_contest_plot(found[:MAX_CONTESTS]))
    table = _advice_table(facts)
    if table is not None:
        parts.append(table)
    if facts.advice and any(item.decision == Decision.ABSTAIN for item in facts.advice):
        parts.append(Prose(_abstained(facts)))
    return Section(title, about, tuple(parts) or (Prose("No task has two judged runs of each kind yet, so there is nothing to compare."),))


def _abstained(facts: Facts) -> str:
    n = sum(item.decision == Decision.ABSTAIN for item in facts.advice)
    return f"Of {count(len(facts.advice), 'recommendation')} that runs asked for, {n:,} changed nothing, since the evidence was too thin."


def _contest_plot(found: Sequence[Contest]) -> Plot:
    names = [f"{clean(item.name, 36)}" for item in found]
    own = [f"{clean(item.name)}: {count(item.n_own, 'own run')}, mean rank {show_share(item.own)}" for item in found]
    recommended = [
        f"{clean(item.name)}: {count(item.n_recommended, 'recommended run')}, mean rank {show_share(item.recommended)}\n"
        f"difference {100 * item.gap:+.0f} points (95 %: {100 * item.gap_low:+.0f} to {100 * item.gap_high:+.0f})"
        for item in found
    ]
    x: list[float | None] = []
    y: list[str | None] = []
    for name, item in zip(names, found, strict=True):
        x += [item.own, item.recommended, None]
        y += [name, name, name]
    series = (
        Series("difference", x, y, Kind.LINE, Tone.FAINT, is_strong=True, in_legend=False, hover=[""] * len(x)),
        Series("your own choice", [i.own for i in found], names, Kind.POINTS, Tone.BLUE, hover=own, is_strong=True),
        Series(
            "recommended",
            [i.recommended for i in found],
            names,
            Kind.POINTS,
            Tone.ORANGE,
            hover=recommended,
            symbol="diamond",
            is_strong=True,
        ),
    )
    return Plot(
        "recommended",
        "Mean rank of recommended and own runs, by task",
        series,
        x_title="better than ... of the task's runs, mean",
        x_is_percent=True,
        x_range=(-0.03, 1.03),
        is_sideways=True,
        note="Tasks with at least two runs of each kind.",
        height=150 + 28 * len(found),
    )


def _advice_table(facts: Facts) -> Table | None:
    by_id = {run.id: (task, i) for task in facts.tasks for i, run in enumerate(task.runs)}
    applied = [item for item in facts.advice if item.decision == Decision.APPLY and item.run_id in by_id]
    rows = []
    for item in reversed(applied[-MAX_RECOMMENDATIONS:]):
        task, i = by_id[item.run_id]
        changes = ", ".join(filter(None, (clean(show_change(*change)).replace("->", "→") for change in item.changes[:4])))
        rows.append(
            (
                clean(task.name),
                task.runs[i].started_utc[:10],
                changes or NOTHING,
                _expected(item),
                str(task.runs[i].status) if item.outcome is None else f"{show_number(item.outcome)}",
                show_share(item.rank),
            )
        )
    if not rows:
        return None
    more = f"The newest {MAX_RECOMMENDATIONS} of {len(applied):,}. " if len(applied) > MAX_RECOMMENDATIONS else ""
    return Table(
        "What was recommended, and what came of it",
        ("task", "day", "changed", "expected", "came out", "better than"),
        tuple(rows),
        note=f"{more}Better than: share of the task's other runs that did worse. "
        "Expected, in percent: better than so many random configurations.",
        is_text=frozenset({1, 2}),
    )


def _expected(item: AdviceOutcome) -> str:
    if math.isnan(item.prediction):
        return NOTHING
    show = show_share if item.unit == Unit.RANK else show_number
    return f"{show(item.prediction)} ({show(min(item.interval))} to {show(max(item.interval))})"


def calibration_section(facts: Facts) -> Section:
    """Show whether the meta-model knows how sure it may be."""
    about = (
        "The meta-model gives an interval with each prediction. An 80 % interval should hold the outcome four times out of five: less "
        "often and it is too sure of itself, more often and it is wider than it must be."
    )
    if not facts.n_runs:
        return Section("Calibration", "", ())
    parts: list[Part] = []
    coverage = facts.model.get("coverage") if isinstance(facts.model, Mapping) else None
    if isinstance(coverage, Mapping) and coverage.get("half_widths"):
        parts += calibration_parts(coverage)
    elif facts.model:
        parts.append(Prose("This meta-model has seen too few tasks to measure its own intervals; they are left wide."))
    else:
        parts.append(Prose("There is no meta-model yet. metahp refit learns one."))
    outcomes = [
        item for item in facts.advice if item.unit == Unit.OBJECTIVE and item.outcome is not None and not math.isnan(item.prediction)
    ]
    outcomes = [item for item in outcomes if item.decision == Decision.APPLY]
    if outcomes:
        parts += _outcome_parts(facts, outcomes)
    return Section("How far the meta-model can be trusted", about, tuple(parts))


def calibration_parts(coverage: Mapping[str, Any]) -> list[Part]:
    """Return the picture and the table of a model's calibration, as it is stored with the model."""
    levels = [float(level) for level in coverage["levels"]]
    rows = []
    for n in sorted(coverage["half_widths"], key=int):
        widths = zip(coverage["half_widths"][n], levels, strict=True)
        factors = [float(width) / float(norm.ppf(0.5 + level / 2)) for width, level in widths]
        held = coverage["coverage_before"][n]
        rows.append((_own_runs(n), *(show_share(float(share)) for share in held), *(f"\u00d7 {factor:.2f}" for factor in factors)))
    columns = ("own runs", *(f"{show_share(level)} held" for level in levels), *(f"{show_share(level)} scaled by" for level in levels))
    return [calibration_plot(coverage), Table("The correction", columns, tuple(rows))]


def _own_runs(n: str) -> str:
    return "no run of the task" if int(n) == 0 else f"{count(int(n), 'run')} of the task"


def calibration_plot(coverage: Mapping[str, Any]) -> Plot:
    """Draw what intervals held against what they claim.

    Args:
        coverage: As ``metamodel.gp.calibration`` notes it with a model, with at least one number of own runs.
    """
    levels = [float(level) for level in coverage["levels"]]
    series = []
    for place, n in enumerate(sorted(coverage["half_widths"], key=int)):
        held = [float(share) for share in coverage["coverage_before"][n]]
        hover = [f"{_own_runs(n)}\nclaimed {show_share(a)}, held {show_share(b)}" for a, b in zip(levels, held, strict=True)]
        tone, symbol, dash = SEQUENCE[place % len(SEQUENCE)], SYMBOLS[1 + place % 7], DASHES[place % len(DASHES)]
        series.append(Series(_own_runs(n), levels, held, Kind.LINE, tone, hover=hover, symbol=symbol, dash=dash))
    return Plot(
        "calibration",
        "What the intervals held before they were corrected",
        tuple(series),
        x_title="claimed share",
        y_title="share of outcomes inside",
        x_is_percent=True,
        y_is_percent=True,
        x_range=(0.4, 1.0),
        y_range=(0.0, 1.02),
        has_diagonal=True,
        note=f"Each of {count(int(coverage.get('n_tasks', 0)), 'past task')} was predicted from the others. Above the broken line an "
        "interval is wider than it must be, below it too narrow. The meta-model scales its intervals until they lie on the line.",
        height=400,
    )


def held_interval(n_held: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share (Clopper & Pearson, 1934)."""
    low = 0.0 if n_held == 0 else float(beta.ppf(0.025, n_held, n - n_held + 1))
    high = 1.0 if n_held == n else float(beta.ppf(0.975, n_held + 1, n - n_held))
    return low, high


def _outcome_parts(facts: Facts, outcomes: Sequence[AdviceOutcome]) -> list[Part]:
    n_held = sum(min(item.interval) <= (item.outcome or 0.0) <= max(item.interval) for item in outcomes)
    low, high = held_interval(n_held, len(outcomes))
    text = (
        f"Of {count(len(outcomes), 'recommended run')} with a prediction in units of the objective, {n_held:,} ended inside the "
        f"80 % interval given before: {show_share(n_held / len(outcomes))} (95 % interval {show_share(low)} to {show_share(high)})."
    )
    by_id = {run.id: task for task in facts.tasks for run in task.runs}
    groups: dict[tuple[str, str], list[AdviceOutcome]] = {}
    for item in outcomes:
        task = by_id[item.run_id]
        groups.setdefault((task.name, task.objective), []).append(item)
    plots: list[tuple[str, Plot]] = []
    for (name, objective), items in sorted(groups.items(), key=lambda pair: -len(pair[1]))[:12]:
        plots.append(
            (f"{name} ({objective})", prediction_plot(f"predictions-{len(plots) + 1}", name, objective, [_as_pair(item) for item in items]))
        )
    return [Prose(text), Gallery("Task", tuple(plots))]


def _as_pair(item: AdviceOutcome) -> tuple[float, float, float, float, str]:
    return item.prediction, min(item.interval), max(item.interval), item.outcome or 0.0, f"run {item.run_id}"


def prediction_plot(name: str, task: str, objective: str, pairs: Sequence[tuple[float, float, float, float, str]]) -> Plot:
    """Draw outcomes against predictions with their intervals.

    Args:
        name: Name of the picture.
        task: Name of the task.
        objective: Name of the metric.
        pairs: Prediction, lower and upper end, outcome, and whose it is.
    """
    shown = list(pairs[-MAX_PREDICTIONS:])
    low = min(min(a, b, d) for a, b, _, d, _ in shown)
    high = max(max(a, c, d) for a, _, c, d, _ in shown)
    margin = 0.04 * (high - low or 1.0)
    hover = [
        f"{whose}\nexpected {show_number(a)} ({show_number(b)} to {show_number(c)}), came out {show_number(d)}"
        for a, b, c, d, whose in shown
    ]
    series = Series(
        "run",
        [a for a, *_ in shown],
        [pair[3] for pair in shown],
        Kind.POINTS,
        Tone.ORANGE,
        low=[b for _, b, *_ in shown],
        high=[pair[2] for pair in shown],
        hover=hover,
        symbol="diamond",
        in_legend=False,
    )
    ends = (low - margin, high + margin)
    left = f"The newest {MAX_PREDICTIONS} of {len(pairs):,}. " if len(pairs) > MAX_PREDICTIONS else ""
    return Plot(
        name,
        f"Expected and real {clean(objective)} of {clean(task)}",
        (series,),
        x_range=ends,
        y_range=ends,
        has_diagonal=True,
        is_sideways=True,
        note=f"{left}A bar that crosses the broken line held the outcome.",
        height=440,
        x_title=f"expected {clean(objective, 40)}, with its 80 % interval",
        y_title=f"{clean(objective, 40)} that came out",
    )


def share_of_broken_time(facts: Facts) -> float | None:
    """Return the share of all training time that went into runs that diverged or failed; None where no time is known."""
    known = [(run.wall_s, run.status in BROKEN) for run in facts.runs() if run.wall_s is not None]
    total = sum(seconds for seconds, _ in known)
    return sum(seconds for seconds, is_broken in known if is_broken) / total if total > 0 else None


def mattered_text(tasks: Sequence[TaskFacts], found: Mapping[int, Mapping[str, float]]) -> str:
    """Say in a sentence which hyperparameter mattered most; empty where nobody knows."""
    from metahp_report.importance import mean_importances

    means = list(mean_importances(list(found.values())).items())
    if not means:
        return ""
    (name, (share, n)), *others = means
    where = "" if n == 1 and len(tasks) == 1 else f" on average over {count(n, 'task')}"
    text = f"{clean(name)} mattered most: {show_share(share)} of what decided between runs{where}"
    return f"{text}, then {clean(others[0][0])} with {show_share(others[0][1][0])}." if others else f"{text}."
