"""Calibration of a meta-model's intervals: as lines on the terminal, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metahp_cli import output

BAR_WIDTH = 40


def print_calibration(info: Mapping[str, Any]) -> None:
    """Print the coverage of intervals before they were corrected, and by how much they are scaled now; nothing if unmeasured.

    Args:
        info: Recorded facts of a model.
    """
    coverage = info.get("coverage") or {}
    if not coverage.get("half_widths"):
        return
    output.print_line("")
    title = f"Calibration: each of {coverage['n_tasks']} past tasks predicted from the others; = coverage, | nominal"
    output.print_table(*calibration_rows(coverage), title=title)
    if coverage.get("trust", 1.0) < 1:
        output.print_line(
            f"Past tasks predict each other only weakly; the prior weight of the history is reduced to {coverage['trust']:.0%}."
        )


def calibration_rows(coverage: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows, a row for each number of runs of the task and each level.

    Args:
        coverage: As ``metamodel.gp.calibration`` records it: levels, and by number of runs of the task the half widths in standard
            deviations and the coverage before they were corrected.
    """
    from statistics import NormalDist

    rows = []
    for n in sorted(coverage["half_widths"], key=int):
        values = zip(coverage["levels"], coverage["coverage_before"][n], coverage["half_widths"][n], strict=True)
        for level, held, width in values:
            scale = width / NormalDist().inv_cdf(0.5 + level / 2)
            rows.append([f"{n} runs of the task", f"{level:.0%}", f"{held:.0%}", bar(held, level), f"x {scale:.2f}"])
    return ["known", "nominal", "coverage", "", "now scaled by"], rows


def bar(held: float, claimed: float) -> str:
    """Draw a share as a bar with a mark where it should end."""
    cells = ["=" if place < round(held * BAR_WIDTH) else " " for place in range(BAR_WIDTH)]
    cells[min(round(claimed * BAR_WIDTH), BAR_WIDTH - 1)] = "|"
    return "".join(cells)


def save_calibration(info: Mapping[str, Any], path: Path) -> Path:
    """Draw the same as a picture.

    Args:
        info: Recorded facts of a model.
        path: A PNG file; its folder must exist.

    Raises:
        NotEnoughHistoryError: If the model was trained on too few tasks to calibrate its intervals.
        InvalidArgumentError: If the file is no PNG.
        HistoryPathError: If it cannot be written.
    """
    from metahp_report.advice_section import calibration_plot
    from metahp_report.pictures import save_picture
    from store import InvalidArgumentError, NotEnoughHistoryError

    coverage = info.get("coverage") or {}
    if path.suffix.lower() != ".png":
        raise InvalidArgumentError(f"A picture must be a file ending in .png, but got {path.name!r}. Name one, e.g. --png calibration.png")
    if not coverage.get("half_widths"):
        raise NotEnoughHistoryError(
            f"Intervals are calibrated on held-out tasks, but this model of kind {info.get('kind')!r} has no calibration: it was trained "
            "on too few tasks, or predicts no intervals. Call metahp refit once the history has more tasks."
        )
    return save_picture(calibration_plot(coverage), path)
