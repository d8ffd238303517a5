"""The report of a whole history: what was trained, what mattered, what recommendations were worth, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from metahp_report.advice_section import (
    advice_section,
    calibration_section,
    contests,
    mattered_text,
    share_of_broken_time,
)
from metahp_report.cost_section import cost_section, energy_total
from metahp_report.facts import BROKEN, Facts, read_facts
from metahp_report.importance_section import importance_section, ordered_names, task_importances
from metahp_report.parts import Report
from metahp_report.runs_section import curves_section, runs_section, time_span, total_time
from metahp_report.wording import NOTHING, clean, count, listed, show_energy, show_number, show_share
from store.repeats import outcome_of, pooled

if TYPE_CHECKING:
    from store import History


def history_report(history: History) -> Report:
    """Return the report of a history.

    Args:
        history: Open history; one without runs gives a report that states it.
    """
    facts = read_facts(history)
    shares = task_importances(facts)
    span = time_span(facts)
    n_tasks = len({task.task_id for task in facts.tasks})
    if facts.n_runs:
        subtitle = f"{count(facts.n_runs, 'run')} of {count(n_tasks, 'task')} in {facts.file}" + (f", {span}" if span else "")
    else:
        subtitle = f"{facts.file} holds no training runs yet."
    return Report(
        title="What your training runs taught",
        subtitle=subtitle,
        tiles=_tiles(facts, n_tasks) if facts.n_runs else (),
        findings=tuple(_findings(facts, shares)),
        sections=(
            runs_section(facts, ordered_names(facts, shares)),
            advice_section(facts),
            importance_section(facts, shares),
            curves_section(history, facts),
            calibration_section(facts),
            cost_section(facts),
        ),
        remarks=tuple(_remarks(facts)),
    )


def _tiles(facts: Facts, n_tasks: int) -> tuple[tuple[str, str, str], ...]:
    n_broken = sum(n for status, n in facts.n_by_status.items() if status in BROKEN)
    n_judged = sum(outcome_of(run) is not None for run in facts.runs())
    n_recommended = sum(int(task.is_recommended.sum()) for task in facts.tasks)
    joules, n_measured = energy_total(facts)
    energy = (
        (NOTHING, "energy", "not measured")
        if joules is None
        else (show_energy(joules), "energy", f"measured in {count(n_measured, 'run')}")
    )
    return (
        (f"{facts.n_runs:,}", "runs", f"{n_judged:,} with an outcome, {n_broken:,} diverged or failed"),
        (f"{n_tasks:,}", "tasks" if n_tasks != 1 else "task", "data, model and objective"),
        (f"{n_recommended:,}", "recommended runs", f"{show_share(n_recommended / facts.n_runs)} of all"),
        (total_time(facts), "of training", "wall time of all runs"),
        energy,
    )


def _findings(facts: Facts, shares: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Return what a reader should take away, the most important first."""
    found = [
        text
        for text in (_worth(facts), _best_by_advice(facts), mattered_text(facts.tasks, shares), _lost(facts), _last_gain(facts))
        if text
    ]
    if not facts.n_runs:
        found.append(
            "Record a run first: add MetaHPCallback to your trainer, or use History.start_run; metahp import takes in what you have."
        )
    return found


def _worth(facts: Facts) -> str:
    found = contests(facts)
    if not found:
        return ""
    better = [item for item in found if item.gap_low > 0]
    worse = [item for item in found if item.gap_high < 0]
    n = sum(item.n_recommended for item in found)
    mean = sum(item.recommended * item.n_recommended for item in found) / n
    own = sum(item.own * item.n_own for item in found) / sum(item.n_own for item in found)
    text = f"Recommended runs beat {show_share(mean)} of their task's other runs on average, your own choices {show_share(own)}. "
    text += f"They are clearly better on {len(better)} of {count(len(found), 'task')}"
    return text + (f" and clearly worse on {len(worse)}: {listed([item.name for item in worse])}." if worse else ", clearly worse on none.")


def _best_by_advice(facts: Facts) -> str:
    met = [task for task in facts.tasks if task.is_recommended.any() and task.best is not None]
    if not met:
        return ""
    n = sum(bool(task.is_recommended[task.best]) for task in met if task.best is not None)
    return f"On {n} of the {count(len(met), 'task')} that met recommendations, the best run of all is a recommended one."


def _lost(facts: Facts) -> str:
    share = share_of_broken_time(facts)
    n_broken = sum(n for status, n in facts.n_by_status.items() if status in BROKEN)
    if share is None or not n_broken:
        return ""
    return f"{count(n_broken, 'run')} diverged, ran out of memory or failed, and took {show_share(share)} of the training time."


def _last_gain(facts: Facts) -> str:
    """Name the task whose best run is the newest: what still moves."""
    best = [(task.runs[task.best].started_utc, task) for task in facts.tasks if task.objective and task.best is not None and len(task) > 1]
    if not best:
        return ""
    day, task = max(best, key=lambda pair: pair[0])
    value = show_number(float(task.values[task.best or 0]))
    record, draws = task.runs[task.best or 0], pooled(task.runs)
    n = next((len(item) for item in draws if any(run is record for run in item.runs)), 1)
    luck = "" if all(len(item.runs) == 1 for item in draws) else f", the best of {n} draws" if n > 1 else ", a single draw"
    return f"The newest record: {clean(task.objective)} {value} on {clean(task.name)}, {day[:10]}{luck}." if day[:4] != "1970" else ""


def _remarks(facts: Facts) -> list[str]:
    now = datetime.now(UTC).isoformat(timespec="minutes").replace("+00:00", " UTC").replace("T", " ")
    remarks = [f"Made by metahp report on {now} from {facts.file}."]
    if facts.n_comparisons:
        remarks.append(
            f"The history also holds {count(facts.n_comparisons, 'live comparison')}; metahp report --comparison ID shows one, "
            "and its runs count here as well."
        )
    return remarks
