"""What a logger adds to a training step of Lightning: ``python -m benchmarks.bench_logging``; see docs/performance.md."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measuring import Interval, differences, interval
from benchmarks.page import markdown_table, measured_on, write_section
from benchmarks.slices import Slices, measure_slices

BASELINE = "no logger"
OURS = "metahp"
REFERENCE = "CSVLogger"
LIMIT = 1 / 3
"""Ours may add this share of what ``CSVLogger`` adds."""
SLICE = 200
"""Steps compared at a time, so that every logger writes within each slice: ``CSVLogger`` after 100 steps, ours after a second."""
EVERYDAY = 50
"""Lightning's own default of ``log_every_n_steps``."""

Fit = Callable[[str, Path, int, int, Slices], None]
"""From a candidate's name, a folder, steps, ``every`` and what counts the steps to a fit."""


@dataclass(frozen=True)
class Added:
    """What one candidate adds to a step, in microseconds; ``step_us`` is what the step took."""

    name: str
    wall_us: Interval
    cpu_us: Interval
    step_us: float


def measure(fit: Fit, names: Sequence[str], steps: int, every: int, rounds: int) -> list[Added]:
    """Return what each candidate adds to a step beside the first name, which records nothing.

    Args:
        fit: Trains once.
        names: Candidates, the baseline first.
        steps: Steps of a fit.
        every: Steps between two logs.
        rounds: Fits of each candidate.
    """
    slice_steps = max(1, min(SLICE, steps // 4))

    def one(name: str) -> Callable[[Slices], None]:
        def work(slices: Slices) -> None:
            with tempfile.TemporaryDirectory(prefix="metahp-benchmark-") as folder:
                fit(name, Path(folder), steps, every, slices)

        return work

    timings = measure_slices({name: one(name) for name in names}, rounds, slice_steps, note=_note)
    base = timings[names[0]]
    rows = []
    for name in names:
        wall = differences([took.wall_s for took in timings[name]], [took.wall_s for took in base])
        cpu = differences([took.cpu_s for took in timings[name]], [took.cpu_s for took in base])
        step_us = statistics.median(took.wall_s for took in timings[name]) * 1e6 / slice_steps
        rows.append(Added(name, interval(wall).scaled(1e6 / slice_steps), interval(cpu).scaled(1e6 / slice_steps), step_us))
    return rows


def table(rows: Sequence[Added], missing: dict[str, str], reference: str | None) -> str:
    """Return the table; candidates that could not be measured are named in it."""
    limit = next((row.wall_us.median for row in rows if row.name == reference), None)
    lines = []
    for row in rows:
        if row.name == rows[0].name:
            lines.append([row.name, f"{row.step_us:.0f}", "", "", "", ""])
            continue
        share = f"{row.wall_us.median / limit:.2f}" if limit else ""
        added = row.wall_us
        lines.append(
            [
                row.name,
                f"{row.step_us:.0f}",
                f"{added.median:.0f}",
                f"{added.low:.0f} to {added.high:.0f}",
                share,
                f"{row.cpu_us.median:.0f}",
            ]
        )
    lines += [[name, why, "", "", "", ""] for name, why in missing.items()]
    return markdown_table(
        ["recorded by", "step, µs", "added, µs", "95 % interval", f"of {reference}" if reference else "", "added CPU, µs"], lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page with ``--write``; 1 if ours adds more than it may."""
    from benchmarks.lightning_fits import IDLE, METRICS, Recording, fit, idle, recordings

    options = _parse(arguments)
    torch.set_num_threads(1)
    ways = recordings()
    missing = {name: way for name, way in ways.items() if isinstance(way, str)}
    present = {name: way for name, way in ways.items() if isinstance(way, Recording) and name not in options.without}

    def train(name: str, folder: Path, steps: int, every: int, slices: Slices) -> None:
        fit(idle() if name == IDLE else present[name], folder, steps=steps, every=every, tick=slices.tick)

    rows = measure(train, list(present), options.steps, 1, options.rounds)
    everyday = measure(train, [BASELINE, IDLE, OURS], options.steps, EVERYDAY, options.rounds)
    added = {row.name: row.wall_us.median for row in rows}
    share = added[OURS] / added[REFERENCE]
    nothing, usual = (row.wall_us for row in everyday[1:])
    text = "\n\n".join(
        [
            f"{measured_on()} `Trainer.fit` with a linear layer, {options.steps:,} steps, {len(METRICS)} metrics every step, "
            f"{options.rounds} rounds: the fits run side by side, {SLICE} steps of each in turn while the others are stopped, and the "
            "figures are medians of the differences within a turn. Every logged value was in the file when `fit` returned.",
            table(rows, missing, REFERENCE),
            f"metahp adds {share:.2f} of what `CSVLogger` adds; the benchmark fails above {LIMIT:.2f}.",
            f"With the Trainer's default of logging every {EVERYDAY} steps, metahp adds {usual.median:.1f} µs a step "
            f"(95 % interval {usual.low:.1f} to {usual.high:.1f}) to steps of {everyday[0].step_us:.0f} µs; a callback that does nothing, "
            f"which the Trainer calls all the same, adds {nothing.median:.1f} ({nothing.low:.1f} to {nothing.high:.1f}).",
        ]
    )
    sys.stdout.write(text + "\n")
    if options.write:
        write_section("logging-lightning", text)
    return int(share > LIMIT and not options.lenient)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_logging", description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="training steps of a fit")
    parser.add_argument("--rounds", type=int, default=9, help="fits of each candidate")
    parser.add_argument("--without", nargs="*", default=(), help="candidates to leave out")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--lenient", action="store_true", help="exit with 0 also where ours adds too much")
    return parser.parse_args(arguments)


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
