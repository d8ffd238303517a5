"""A replay for reading: the table of regrets and the picture of regret against evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metamodel.kinds import DEFAULT as OURS

LOWEST = 1e-4
"""Smallest regret that a picture tells from 0, which a logarithmic scale does not have."""
REGRET_SHOWN = (1, 2, 3, 5, 8, 16, 32)
"""Evaluations that tables show."""


def shown_evaluations(budget: int) -> list[int]:
    """Return the numbers of evaluations that a table shows, the last one always."""
    return sorted({*(k for k in REGRET_SHOWN if k <= budget), budget})


def regret_rows(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of the table of a replay, best after a few evaluations first.

    Args:
        report: As ``run_replay`` returns it.
    """
    ks = shown_evaluations(len(report["random_exact"]))
    middle = min(5, ks[-1])
    columns = ["method", *(f"k={k}" for k in ks), f"95 % at k={middle}", f"rank at k={middle}", f"random needs for k={middle}", "seconds"]
    shows_failures = any(max(item.get("failed") or [0]) > 0 for item in report["methods"].values())
    columns += [f"failed of {ks[-1]}"] if shows_failures else []
    rows = []
    for name, item in sorted(report["methods"].items(), key=lambda pair: pair[1]["regret"][middle - 1]):
        low, high = item["ci95"][middle - 1]
        needed = item["random_equivalent"][middle - 1]
        cells = [show_regret(item["regret"][k - 1]) for k in ks]
        cells += [f"{show_regret(low)}-{show_regret(high)}", f"{item['mean_rank'][middle - 1]:.1f}" if item["mean_rank"] else "-"]
        cells += ["more than all" if needed is None else f"{needed:.0f}", f"{item['seconds']:.0f}"]
        if shows_failures:
            cells.append(f"{item['failed'][-1]:.1f}" if item["failed"] else "-")
        rows.append([name, *cells])
    return columns, rows


def comparison_rows(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of a scenario's comparison: the default against the best peer and against the plain process."""
    entries = [report["comparison"][k - 1] for k in shown_evaluations(len(report["random_exact"]))] if report["comparison"] else []
    columns = ["k", "best peer", "metahp minus it", "95 %"]
    has_plain = bool(entries) and "plain" in entries[0]
    columns += ["metahp minus plain-gp", "95 %"] if has_plain else []
    rows = []
    for entry in entries:
        parts = [entry, *([entry["plain"]] if has_plain else [])]
        cells = [cell for part in parts for cell in (f"{part['difference']:+.3f}", f"{part['ci95'][0]:+.3f} to {part['ci95'][1]:+.3f}")]
        rows.append([str(entry["k"]), entry["best_peer"], *cells])
    return columns, rows


def show_regret(value: float) -> str:
    """Write a regret with three decimals, without the zero in front."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text


def save_picture(report: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the mean regret against the number of evaluations, with intervals over tasks.

    Args:
        report: As ``run_replay`` returns it.
        path: A PNG file; its folder must exist.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    evaluations = range(1, len(report["random_exact"]) + 1)
    axes.plot(evaluations, [max(value, LOWEST) for value in report["random_exact"]], color="black", linestyle="--", label="random (exact)")
    for name, item in report["methods"].items():
        if name == "random":
            continue
        style = {"linewidth": 2.8, "color": "crimson", "zorder": 5} if name == OURS else {"linewidth": 1.2}
        (line,) = axes.plot(evaluations, [max(value, LOWEST) for value in item["regret"]], label=name, **style)
        low, high = ([max(end, LOWEST) for end in ends] for ends in zip(*item["ci95"], strict=True))
        axes.fill_between(evaluations, low, high, color=line.get_color(), alpha=0.08, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="evaluations on the new task", ylabel="mean normalised regret")
    ticks = shown_evaluations(len(report["random_exact"]))
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(f"{report['protocol']['objective']}, {len(report['protocol']['tasks'])} tasks")
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    path = Path(path)
    figure.savefig(path, format="png", dpi=150)
    return path
