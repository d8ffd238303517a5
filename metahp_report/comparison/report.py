"""The report of a live comparison: who finds good values first, what it costs, how good the recommendations were."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from metahp_report.comparison.curves import standings_section, tasks_section
from metahp_report.comparison.models import advice_section, calibration_section, curves_section, importance_section, regret_at
from metahp_report.comparison.reader import load_comparison
from metahp_report.comparison.records import ComparisonResult, MethodStanding
from metahp_report.comparison.tables import cost_section, table_section
from metahp_report.parts import Report
from metahp_report.wording import NOTHING, clean, count, listed, show_duration, show_energy, show_share
from metamodel.kinds import DEFAULT as OURS

if TYPE_CHECKING:
    from store import History

FEW_TASKS = 6
"""Tasks below which an interval over tasks is to be read with care."""


def comparison_report(history: History, comparison_id: str | None = None) -> Report:
    """Return the report of a live comparison.

    Args:
        history: Open history that holds it.
        comparison_id: Its id, or a beginning that only this one has; None for the newest.

    Raises:
        InvalidArgumentError: If there is no such comparison.
    """
    result = load_comparison(history, comparison_id)
    plan = result.plan
    parts = [result.created_utc[:10], f"size {plan.size}", f"{count(plan.budget, 'evaluation')} a search", count(plan.seeds, "seed")]
    parts += [plan.hardware] if plan.hardware else []
    return Report(
        title=f"Tuning methods compared on {listed(plan.tasks)}",
        subtitle=", ".join(parts),
        tiles=_tiles(result),
        findings=tuple(_findings(result)),
        sections=(
            standings_section(result),
            tasks_section(result),
            table_section(result),
            advice_section(result),
            importance_section(result),
            curves_section(history, result),
            calibration_section(result),
            cost_section(result),
        ),
        remarks=tuple(_remarks(history, result)),
    )


def _tiles(result: ComparisonResult) -> tuple[tuple[str, str, str], ...]:
    done = [evaluation for search in result.searches for evaluation in search.evaluations]
    n_failed = sum(evaluation.value is None for evaluation in done)
    cpu = [evaluation.cpu_s for evaluation in done if evaluation.cpu_s is not None]
    joules = [part.joules for evaluation in done for part in evaluation.energy]
    n_measured = sum(bool(evaluation.energy) for evaluation in done)
    return (
        (f"{len(result.plan.methods)}", "methods", f"on {count(len(result.plan.tasks), 'task')}, {count(result.plan.seeds, 'seed')}"),
        (f"{len(done):,}", "models trained", f"{n_failed:,} of them failed" if n_failed else "none failed"),
        (show_duration(sum(search.seconds for search in result.searches)), "of searching", "all methods together"),
        (show_duration(sum(cpu)) if cpu else NOTHING, "of CPU time", f"in {count(len(cpu), 'training')}"),
        (show_energy(sum(joules)), "energy", f"measured in {n_measured:,} of {len(done):,} trainings")
        if joules
        else (NOTHING, "energy", "not measured"),
    )


def _findings(result: ComparisonResult) -> list[str]:
    texts = (_unfinished(result), _winner(result), _against_ours(result), _weakest(result), _time_saved(result))
    return [text for text in texts if text]


def _unfinished(result: ComparisonResult) -> str:
    if result.is_complete:
        return ""
    n = len(result.plan.tasks) * len(result.plan.methods) * result.plan.seeds
    text = f"Not finished: {result.n_missing:,} of {count(n, 'search')} missing or incomplete. Everything below is of what is there"
    waiting = [name for name in result.plan.methods if name not in {item.method for item in result.standings}]
    return text + (f"; regret and ranks leave out {listed(waiting)}." if waiting else ".")


def _winner(result: ComparisonResult) -> str:
    if len(result.standings) < 2:
        return ""
    order = sorted(result.standings, key=lambda item: item.regret[-1])
    first, others = order[0], ", ".join(f"{clean(item.method)} {item.regret[-1]:.3f}" for item in order[1:4])
    low, high = first.ci95[-1]
    return (
        f"After {count(result.plan.budget, 'evaluation')} {clean(first.method)} is closest to the best that anybody found: mean "
        f"normalised regret {first.regret[-1]:.3f} (95 % interval {low:.3f} to {high:.3f}), then {others}. 0 is the best."
    )


def _against_ours(result: ComparisonResult) -> str:
    compared = [item for item in result.standings if item.difference_ci95]
    if not compared:
        return ""
    better = [item.method for item in compared if _end(item)[1] < 0]
    worse = [item.method for item in compared if _end(item)[0] > 0]
    open_ = [item.method for item in compared if item.method not in better and item.method not in worse]
    texts = [f"clearly better than {listed(better, 9)}"] if better else []
    texts += [f"clearly worse than {listed(worse, 9)}"] if worse else []
    texts += [f"not distinguishable from {listed(open_, 9)}"] if open_ else []
    n = len(result.plan.tasks)
    caution = "; so few tasks allow little to be concluded for another one" if n < FEW_TASKS else ""
    return f"{OURS} is {'; '.join(texts)} (paired 95 % intervals over {count(n, 'task')}{caution})."


def _end(item: MethodStanding) -> tuple[float, float]:
    return (item.difference_ci95 or ((0.0, 0.0),))[-1]


def _weakest(result: ComparisonResult) -> str:
    """Name the task on which ours is furthest behind: what a reader must know before trusting the mean."""
    gaps = []
    for task in result.plan.tasks:
        ends = {method: regret_at(result, task, method, result.plan.budget) for method in result.plan.methods}
        known = {method: value for method, value in ends.items() if value is not None}
        if OURS in known and len(known) > 1:
            best = min(known, key=lambda method: known[method])
            gaps.append((known[OURS] - known[best], task, best, known[OURS], known[best]))
    if not gaps:
        return ""
    gap, task, best, ours, other = max(gaps)
    if gap <= 0:
        return f"No method ends ahead of {OURS} on any task."
    return f"{OURS} is weakest on {clean(task)}: it ends with regret {ours:.3f}, {clean(best)} with {other:.3f}."


def _time_saved(result: ComparisonResult) -> str:
    texts = []
    for baseline in ("grid", "random"):
        lines = [summary.reduction.get(baseline) for summary in result.summaries if summary.method == OURS]
        known = [line.mean for line in lines if line is not None and line.mean is not None]
        if known:
            mean = sum(known) / len(known)
            share = f"{show_share(mean)} less" if mean >= 0 else f"{show_share(-mean)} more"
            texts.append(f"{share} time than {baseline} (it came that far on {len(known)} of {count(len(lines), 'task')})")
    return f"To be as good as the best of the other, {OURS} needed {' and '.join(texts)}." if texts else ""


def _remarks(history: History, result: ComparisonResult) -> list[str]:
    now = datetime.now(UTC).isoformat(timespec="minutes").replace("+00:00", " UTC").replace("T", " ")
    remarks = [f"Made by metahp report on {now} from {history.path.name}, comparison {result.id}."]
    plan = result.plan
    remarks += [f"The meta-models learned from: {plan.origin}."] if plan.origin else []
    remarks += [f"Data: {plan.data}."] if plan.data else []
    remarks += [f"{clean(info.name)}: {info.about}" for info in result.tasks.values() if info.about]
    if plan.jobs > 1:
        remarks.append(f"{plan.jobs} processes worked side by side: times are longer than on an idle machine, for all methods alike.")
    return remarks
