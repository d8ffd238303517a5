"""What the callback adds to a training step of transformers: ``python -m benchmarks.bench_hf``; see docs/performance.md."""

from __future__ import annotations

import argparse
import csv
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers import __version__ as version

from benchmarks.bench_logging import LIMIT, OURS, REFERENCE, SLICE, measure, table
from benchmarks.page import measured_on, write_section
from benchmarks.slices import Slices
from hf_callbacks import MetaHPCallback

BASELINE = "no callback"
IDLE = "a callback that does nothing"
CSV = "csv module"
FLUSHED = "csv module, flushed each step"
LOGGED = ("loss", "grad_norm", "learning_rate")
"""What every step logs."""
EVERYDAY = 500
"""The Trainer's own default of ``logging_steps``."""


class Linear(nn.Module):
    """A model that leaves the step to the Trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return loss and logits."""
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class LightningCsvCallback(TrainerCallback):
    """Lightning's own ``CSVLogger``, given each log of the Trainer as Lightning gives it its own: logged, then saved.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self._logger = CSVLogger(folder)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Log and save."""
        self._logger.log_metrics(dict(logs or {}), state.global_step)
        self._logger.save()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save what is left."""
        self._logger.finalize("success")


class CsvCallback(TrainerCallback):
    """The plainest logger one could write.

    Args:
        path: Where to write.
        is_flushed: Whether each row is on the disk before the next step, so that a crash loses nothing.
    """

    def __init__(self, path: Path, is_flushed: bool) -> None:
        self._path = path
        self._is_flushed = is_flushed

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the file."""
        self._file = self._path.open("w", newline="")
        self._rows = csv.writer(self._file)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one row."""
        self._rows.writerow([state.global_step, *(logs or {}).values()])
        if self._is_flushed:
            self._file.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the file."""
        self._file.close()


class Tick(TrainerCallback):
    """Counts the steps.

    Args:
        slices: What counts.
    """

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Count a step."""
        self._slices.tick()


def fit(name: str, folder: Path, steps: int, every: int, slices: Slices) -> None:
    """Train once.

    Raises:
        AssertionError: If a logged value is missing from the file when ``train`` returns.
    """
    data = [{"x": torch.ones(8), "labels": torch.tensor(i % 2)} for i in range(64)]
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        logging_steps=every,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    callbacks: list[TrainerCallback] = [Tick(slices)]
    if name == OURS:
        callbacks.append(MetaHPCallback("loss", task="benchmark", history=folder / "history.db"))
    elif name == REFERENCE:
        callbacks.append(LightningCsvCallback(folder))
    elif name == IDLE:
        callbacks.append(TrainerCallback())
    elif name != BASELINE:
        callbacks.append(CsvCallback(folder / "log.csv", name == FLUSHED))
    trainer = Trainer(Linear(), args, train_dataset=data, callbacks=callbacks)
    trainer.pop_callback(_printer(trainer))
    trainer.train()
    if name in _COUNTS:
        found, expected = _COUNTS[name](folder), len(LOGGED) * (steps // every)
        if found < expected:
            raise AssertionError(f"every logged value must be in the file when train() returns, but {found} of {expected} are")


def _values_of_metahp(folder: Path) -> int:
    connection = sqlite3.connect(folder / "history.db")
    try:
        found = connection.execute("SELECT name, count(value) FROM metrics GROUP BY 1").fetchall()
    finally:
        connection.close()
    return sum(count for name, count in found if name in LOGGED)


def _values_of_csv(folder: Path) -> int:
    (path,) = folder.rglob("metrics.csv")
    with path.open(newline="") as file:
        return sum(bool(row.get(name)) for row in csv.DictReader(file) for name in LOGGED)


_COUNTS = {OURS: _values_of_metahp, REFERENCE: _values_of_csv}


def _printer(trainer: Trainer) -> Any:
    """Return the Trainer's own callback that prints each log: it would be most of what is measured."""
    return next(item for item in trainer.callback_handler.callbacks if type(item).__name__ == "PrinterCallback")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page with ``--write``; 1 if ours adds more than it may."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    rows = measure(fit, [BASELINE, OURS, REFERENCE, CSV, FLUSHED], options.steps, 1, options.rounds)
    everyday = measure(fit, [BASELINE, IDLE, OURS], options.steps, EVERYDAY, options.rounds)
    added = {row.name: row.wall_us.median for row in rows}
    share = added[OURS] / added[REFERENCE]
    idle, usual = (row.wall_us for row in everyday[1:])
    text = "\n\n".join(
        [
            f"{measured_on()} transformers {version}, `Trainer.train` with a linear layer, {options.steps:,} steps, `logging_steps=1` "
            f"({', '.join(LOGGED)}), {options.rounds} rounds: the fits run side by side, {SLICE} steps of each in turn "
            "while the others are stopped, and the figures are medians of the differences within a turn. Every logged value was in the "
            "file when `train` returned.",
            table(rows, {}, REFERENCE),
            f"metahp adds {share:.2f} of what `CSVLogger` adds; the benchmark fails above {LIMIT:.2f}.",
            f"With the Trainer's default of logging every {EVERYDAY} steps, metahp adds {usual.median:.1f} µs a step "
            f"(95 % interval {usual.low:.1f} to {usual.high:.1f}) to steps of {everyday[0].step_us:.0f} µs; a callback that does nothing, "
            f"which the Trainer calls all the same, adds {idle.median:.1f} ({idle.low:.1f} to {idle.high:.1f}).",
        ]
    )
    sys.stdout.write(text + "\n")
    if options.write:
        write_section("logging-transformers", text)
    return int(share > LIMIT and not options.lenient)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_hf", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="training steps of a fit")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--lenient", action="store_true", help="exit with 0 also where ours adds too much")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
