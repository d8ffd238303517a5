"""A live comparison for reading: its tables as rows, as Markdown, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metahp_report.comparison.records import ComparisonResult, MethodStanding, Spread, TaskMethodSummary
from metahp_report.comparison.summary import BASELINES, NOT_MEASURED
from metamodel.kinds import DEFAULT as OURS
from store.hyperparameters import PER_DEVICE_BATCH_SIZE
from store.names import canonical_name

Rows = tuple[list[str], list[list[str]]]


def quality_rows(result: ComparisonResult) -> Rows:
    """Return what each method found: validation, test, and how soon; a line for each task and method."""
    columns = ["task", "method", "best", "final", "test", "evaluations", "failed", "converged after", "seconds to", "at equal seconds"]
    rows = []
    for item in result.summaries:
        info = result.tasks[item.task]
        test = ", ".join(f"{name} {show(spread)}" for name, spread in item.test.items() if spread.n)
        rows.append(
            [
                item.task,
                item.method,
                f"{info.objective} {show(item.best)}",
                show(item.final),
                test or "-",
                show(item.evaluations),
                show(item.failed),
                show(item.convergence_evaluations, never="never") + _share(item, result.plan.seeds),
                show(item.convergence_s, never="never"),
                show(item.best_at_common_seconds),
            ]
        )
    return columns, rows


def cost_rows(result: ComparisonResult) -> Rows:
    """Return what each method cost: seconds, hours, joules, and the time saved against the baselines."""
    columns = ["task", "method", "seconds", "deciding", "CPU h", "GPU h", "GPU %", "joules", "energy source"]
    columns += [f"time saved against {name}" for name in BASELINES if name in result.plan.methods]
    rows = []
    for item in result.summaries:
        row = [item.task, item.method, show(item.seconds), show(item.decision_s), show(item.cpu_hours), show(item.gpu_hours)]
        row += [show(item.gpu_percent), show(item.energy_j) if item.energy_source != NOT_MEASURED else "-", item.energy_source]
        row += [_percent(item.reduction.get(name)) for name in BASELINES if name in result.plan.methods]
        rows.append(row)
    return columns, rows


def accuracy_rows(result: ComparisonResult) -> Rows:
    """Return how far the first and the chosen configuration were from the best found; a column for each hyperparameter of any task."""
    names = list(dict.fromkeys(name for info in result.tasks.values() for name in info.space))
    units = {"learning_rate": " (log10)", PER_DEVICE_BATCH_SIZE: " (log2)"}
    columns = ["task", "method", "which", *(name + units.get(canonical_name(name), "") for name in names)]
    rows = []
    for item in result.summaries:
        for which, errors in (("first", item.first_error), ("chosen", item.chosen_error)):
            rows.append([item.task, item.method, which, *(show(errors[name]) if name in errors else "" for name in names)])
    return columns, rows


def standing_rows(result: ComparisonResult) -> Rows:
    """Return how the methods stand over all tasks after the first, the middle and the last evaluation."""
    budget = result.plan.budget
    shown = sorted({1, (budget + 1) // 2, budget})
    columns = ["method", *(f"regret after {k}" for k in shown), "95 % interval", "mean rank", "metahp minus it", "95 % interval of that"]
    return columns, [_standing(item, shown) for item in sorted(result.standings, key=lambda item: item.regret[-1])]


def markdown(rows: Rows) -> str:
    """Return rows as a Markdown table."""
    columns, lines = rows
    parts = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    parts += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(parts) + "\n"


def save_picture(result: ComparisonResult, path: Path) -> Path:
    """Draw regret against evaluations with its intervals, and each method's regret by task after the whole budget.

    Returns:
        The file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    steps = range(1, result.plan.budget + 1)
    for number, item in enumerate(result.standings):
        colour = f"C{number}"
        left.plot(steps, item.regret, label=item.method, color=colour, linewidth=2.5 if item.method == OURS else 1.2)
        left.fill_between(steps, [low for low, _ in item.ci95], [high for _, high in item.ci95], color=colour, alpha=0.07)
    left.set(xlabel="evaluations", ylabel="normalised regret (0: best found)", ylim=(-0.02, 1.02), xticks=list(steps))
    left.set_title("Mean over tasks and seeds, 95 % intervals over tasks", fontsize=10)
    left.legend(fontsize=8)
    for number, item in enumerate(result.standings):
        right.scatter(item.mean_rank[-1], number, color=f"C{number}")
        right.annotate(item.method, (item.mean_rank[-1], number), xytext=(6, -3), textcoords="offset points", fontsize=8)
    right.set(xlabel="mean rank after the whole budget (1: best)", yticks=[])
    right.margins(x=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def show(spread: Spread, never: str = "-") -> str:
    """Write mean and spread; the spread only where there are several seeds."""
    if spread.mean is None:
        return never
    mean = f"{spread.mean:.3g}" if abs(spread.mean) < 1000 else f"{spread.mean:.0f}"
    return f"{mean} ± {spread.sd:.2g}" if spread.n > 1 else mean


def _share(item: TaskMethodSummary, n_seeds: int) -> str:
    return f" ({item.n_converged} of {n_seeds} seeds)" if n_seeds > 1 and 0 < item.n_converged < n_seeds else ""


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return "never as good" if spread.mean is None else f"{spread.mean:+.0%}"


def _standing(item: MethodStanding, shown: Sequence[int]) -> list[str]:
    low, high = item.ci95[-1]
    row = [item.method, *(f"{item.regret[k - 1]:.3f}" for k in shown), f"{low:.3f} to {high:.3f}", f"{item.mean_rank[-1]:.2f}"]
    if item.difference is None or item.difference_ci95 is None:
        return [*row, "", ""]
    low, high = item.difference_ci95[-1]
    return [*row, f"{item.difference[-1]:+.3f}", f"{low:+.3f} to {high:+.3f}"]
