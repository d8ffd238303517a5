"""What the demonstration shows: one table and one picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metamodel.explanation import format_value
from store.names import Direction
from studies.demo.runs import DemoOutcome, DemoTask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

DEFAULT, RANDOM, HINDSIGHT, ADVISED = "library defaults", "random configurations", "best of the random ones", "recommended"
FIRST_ADVICE = "recommended on day one"
"""With no run of one's own: from the starter history."""
COLOURS = {DEFAULT: "#4C5B6B", RANDOM: "#B9C0C8", HINDSIGHT: "#C98B2B", ADVISED: "#0B7A75", FIRST_ADVICE: "#7A4FA3"}
COLOUR_OF_LATER = "#C2410C"
"""For the recommendation after own runs, whose name holds a number."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of the comparison on one task.

    Attributes:
        name: What is compared.
        outcomes: Its runs.
        is_chosen_afterwards: Whether the arm was picked by looking at the results, so it is no method one could use.
    """

    name: str
    outcomes: tuple[DemoOutcome, ...]
    is_chosen_afterwards: bool = False

    @property
    def mean(self) -> float:
        """Mean of the objective over all runs."""
        return statistics.fmean(outcome.objective for outcome in self.outcomes)

    @property
    def deviation(self) -> float:
        """Standard deviation of the objective over all runs; 0 for a single one."""
        values = [outcome.objective for outcome in self.outcomes]
        return statistics.stdev(values) if len(values) > 1 else 0.0

    @property
    def wall_s(self) -> float:
        """Mean seconds of a run."""
        return statistics.fmean(outcome.wall_s for outcome in self.outcomes)

    def configurations(self) -> list[str]:
        """Return the distinct configurations in force, as short texts."""
        return list(dict.fromkeys(_config_text(outcome) for outcome in self.outcomes))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All arms of one task."""

    task: DemoTask
    objective: str
    direction: Direction
    arms: tuple[Arm, ...]

    def best_arm(self) -> Arm:
        """Return the arm with the best mean among those one could have used."""
        usable = [arm for arm in self.arms if not arm.is_chosen_afterwards]
        sign = 1.0 if self.direction is Direction.MAX else -1.0
        return max(usable, key=lambda arm: sign * arm.mean)


def compare(task: DemoTask, outcomes: Sequence[DemoOutcome]) -> Comparison:
    """Group the outcomes of one task into arms, in the order in which the arms first appear.

    Beside the random configurations stands the one of them that turned out best on average, chosen afterwards.
    """
    mine = [outcome for outcome in outcomes if outcome.job.task == task]
    objective, direction = str(mine[0].run.objective), Direction(str(mine[0].run.direction))
    arms = []
    for name in dict.fromkeys(outcome.job.arm for outcome in mine):
        runs = sorted((outcome for outcome in mine if outcome.job.arm == name), key=lambda outcome: outcome.job.seed)
        arms.append(Arm(name, tuple(runs)))
        groups = by_configuration(runs)
        if name == RANDOM and len(groups) > 1:
            sign = 1.0 if direction is Direction.MAX else -1.0
            best = max(groups, key=lambda group: sign * statistics.fmean(outcome.objective for outcome in group))
            arms.append(Arm(HINDSIGHT, tuple(best), is_chosen_afterwards=True))
    return Comparison(task, objective, direction, tuple(arms))


def by_configuration(outcomes: Sequence[DemoOutcome]) -> list[list[DemoOutcome]]:
    """Group runs of equal configuration."""
    groups: dict[str, list[DemoOutcome]] = {}
    for outcome in outcomes:
        groups.setdefault(repr(sorted(outcome.config.items())), []).append(outcome)
    return list(groups.values())


def remarks(comparison: Comparison) -> list[str]:
    """Say in which rows advice was asked for and not applied: such a row shows the library defaults once more."""
    lines = []
    for arm in comparison.arms:
        n_failed = sum(outcome.is_unanswered for outcome in arm.outcomes)
        n_kept = sum(outcome.kept_own_values for outcome in arm.outcomes) - n_failed
        if n_failed:
            lines.append(f"{arm.name}: the recommendation FAILED in {n_failed} of {len(arm.outcomes)} runs, which trained the defaults")
        if n_kept:
            lines.append(f"{arm.name}: kept the defaults in {n_kept} of {len(arm.outcomes)} runs, no gain was probable enough")
    return lines


def results_table(comparison: Comparison) -> Table:
    """Return the table of one task, the best usable arm in bold: objective, time and configuration of every arm; fits 80 columns."""
    from rich import box
    from rich.table import Table

    better = "higher is better" if comparison.direction is Direction.MAX else "lower is better"
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{comparison.task.label}: {comparison.objective}, {better}", title_justify="left", pad_edge=False
    )
    table.add_column("configuration", no_wrap=True)
    table.add_column("best epoch", justify="right", no_wrap=True)
    table.add_column("s/run", justify="right", no_wrap=True)
    table.add_column("lr, batch, layers, drop", no_wrap=True)
    best = comparison.best_arm()
    for arm in comparison.arms:
        texts = arm.configurations()
        table.add_row(
            arm.name + (" *" if arm.is_chosen_afterwards else ""),
            f"{arm.mean:.3f} ± {arm.deviation:.3f}",
            f"{arm.wall_s:.1f}",
            "\n".join(texts) if len(texts) <= 3 else f"{len(texts)} different ones",
            style="bold" if arm is best else None,
        )
    return table


def save_picture(comparisons: Sequence[Comparison], n_runs: int, n_tasks: int, path: Path) -> None:
    """Draw the learning curves of every arm, one panel per task.

    Args:
        comparisons: What to draw.
        n_runs: Runs the recommendations were learned from.
        n_tasks: Tasks these runs belong to.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(comparisons), 4.9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for axis, comparison in zip(axes, comparisons, strict=True):
        _draw(axis, comparison)
    handles, labels = axes[0].get_legend_handles_labels()
    bands = "lines: mean over seeds; bands: lowest to highest seed"
    style = {"frameon": False, "fontsize": 9, "title": bands, "title_fontsize": 8.5}
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), **style)
    title = f"New data sets, advice learned from {n_runs} short runs on {n_tasks} other tasks"
    figure.suptitle(title, fontsize=12, fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw(axis: Axes, comparison: Comparison) -> None:
    from matplotlib.ticker import MaxNLocator

    for arm in comparison.arms:
        colour = COLOURS.get(arm.name, COLOUR_OF_LATER)
        if arm.name == RANDOM:
            # Their spread is the point, so every configuration is a thin line of its own (mean over its seeds).
            for group in by_configuration(arm.outcomes):
                mean, _, _ = _curves(group)
                axis.plot(range(1, len(mean) + 1), mean, color=colour, linewidth=0.9, zorder=1)
        mean, low, high = _curves(arm.outcomes)
        epochs = range(1, len(mean) + 1)
        style = "--" if arm.is_chosen_afterwards else "-"
        width = 2.4 if arm.name not in {RANDOM, HINDSIGHT, DEFAULT} else 1.8
        label = {RANDOM: f"{RANDOM} (thin: each, bold: mean)", HINDSIGHT: f"{HINDSIGHT}, in hindsight"}.get(arm.name, arm.name)
        shade = "#8A949E" if arm.name == RANDOM else colour
        axis.plot(epochs, mean, style, color=shade, linewidth=width, label=label, zorder=3)
        if arm.name not in {RANDOM, HINDSIGHT}:
            axis.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0, zorder=2)
    arrow = "higher is better" if comparison.direction is Direction.MAX else "lower is better"
    axis.set_title(comparison.task.label, fontsize=11, loc="left")
    axis.set_xlabel("epoch")
    axis.set_ylabel(f"{comparison.objective} ({arrow})")
    axis.grid(axis="y", color="#E5E8EB", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curves(outcomes: Sequence[DemoOutcome]) -> tuple[list[float], list[float], list[float]]:
    """Return mean, lowest and highest objective after each epoch, over runs of equal length."""
    columns = list(zip(*(outcome.curve for outcome in outcomes), strict=True))
    return (
        [statistics.fmean(column) for column in columns],
        [min(column) for column in columns],
        [max(column) for column in columns],
    )


def _config_text(outcome: DemoOutcome) -> str:
    config = outcome.config
    return f"{format_value(config['learning_rate'])}, {config['batch_size']}, {config['num_layers']}, {config['dropout']:.2f}"
