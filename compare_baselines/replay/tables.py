"""The tables of docs/replay.md: ``python -m compare_baselines.replay.tables``, or ``make replay``.

The recorded tables are no part of this project; they are looked for in ``$METAHP_SHARED_DATA``, else in ``../shared/data``. Figures are
kept as JSON in ``build/replay``, so that the page can be written again without measuring (``--write``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare_baselines.replay.protocol import Protocol, load_benchmark
from compare_baselines.replay.report import regret_rows, save_picture
from compare_baselines.replay.runner import METHODS, run_replay
from store import History, InvalidArgumentError
from store.importers.table import TableColumns, import_table

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "build" / "replay"
SLOW = ("gp",)
"""Methods that are measured apart, with fewer seeds."""


def _lcbench_space() -> dict[str, BaseDistribution]:
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        "batch_size": IntDistribution(16, 512, log=True),
        "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "momentum": FloatDistribution(0.1, 0.99),
        "weight_decay": FloatDistribution(1e-5, 1e-1),
        "num_layers": IntDistribution(1, 4),
        "max_units": IntDistribution(64, 1024, log=True),
        "max_dropout": FloatDistribution(0.0, 1.0),
    }


@dataclass(frozen=True)
class Table:
    """One recorded table: its file, what its columns mean, and how it is replayed."""

    name: str
    file: str
    columns: TableColumns
    join: tuple[str, str] | None = None
    features: tuple[str, str] | None = None
    seeds: int = 3
    slow_seeds: int = 1
    has_space: bool = False
    about: str = ""
    reference: dict[str, str] = field(default_factory=dict)


LCBENCH_HPARAMS = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")
FOREST_HPARAMS = ("bootstrap", "criterion", "max_features", "min_samples_leaf", "min_samples_split", "n_estimators", "imputation")
REFERENCE = {
    "random": "1.165 .808 .666 .539 .456 .364 .288",
    "tpe": "1.440 .751 .731 .652 .384 .272 .200",
    "gp": ".735 .677 .632 .589 .433 .215 .075",
    "best-of-past": ".846 .423 .373 .246 .174 .075 .071",
    "quantile": ".665 .511 .410 .338 .217 .126 .087",
    "zero-shot": ".387 .269 .240 .173 .102 .074 .066",
    "pre-trained GP, plain": ".242 .165 .110 .080 .063 .040 .009",
}
"""Reference figures for ``lcbench`` at k = 1, 2, 3, 5, 8, 16, 32."""
TABLES = (
    Table(
        "lcbench",
        "lcbench/curves.parquet",
        TableColumns("task", "config_id", LCBENCH_HPARAMS, "val_accuracy", "max", "epoch", "time"),
        ("lcbench/configs.parquet", "config_id"),
        ("lcbench/tasks.parquet", "task"),
        has_space=True,
        about="Fully connected networks on 24 tasks, `val_accuracy` at epoch 51; scales as the data's authors give them.",
        reference=REFERENCE,
    ),
    Table(
        "hpobench_mlp",
        "hpobench_mlp.parquet",
        TableColumns("task", "config_id", ("alpha", "batch_size", "depth", "learning_rate_init", "width"), "balanced_accuracy", "max"),
        about="Fully connected networks of scikit-learn on 8 tasks, `balanced_accuracy`; every task has its own 4,000 configurations.",
    ),
    Table(
        "openml_random_forest",
        "openml_random_forest.parquet",
        TableColumns("task", "run", FOREST_HPARAMS, "accuracy", "max"),
        None,
        ("openml_metafeatures.parquet", "task"),
        seeds=1,
        slow_seeds=0,
        about="Random forests on 94 tasks, `accuracy` of 10-fold cross-validation; gains are small there.",
    ),
)


def data_folder() -> Path:
    """Return the folder with the recorded tables.

    Raises:
        InvalidArgumentError: If it is not there.
    """
    folder = Path(os.environ.get("METAHP_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise InvalidArgumentError(f"The recorded tables must be in {folder}, but it is no folder. Set METAHP_SHARED_DATA to theirs.")
    return folder


def measure(table: Table, methods: Sequence[str], seeds: int, workers: int | None = None) -> dict[str, Any]:
    """Import a table into a history of its own and replay it.

    Returns:
        The report of ``run_replay`` with ``import_seconds``, ``wall_seconds`` and ``machine``.
    """
    folder = data_folder()
    with tempfile.TemporaryDirectory(prefix="metahp-tables-") as temporary, History(Path(temporary) / "history.db") as history:
        started = time.perf_counter()
        join = None if table.join is None else (folder / table.join[0], table.join[1])
        features = None if table.features is None else (folder / table.features[0], table.features[1])
        import_table(history, folder / table.file, table.columns, join=join, task_features=features)
        imported = time.perf_counter()
        benchmark = load_benchmark(history, Protocol(seeds=seeds), _lcbench_space() if table.has_space else None)
        report = run_replay(benchmark, methods, workers=workers, progress=_say)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    times = {"import_seconds": imported - started, "wall_seconds": time.perf_counter() - imported}
    return {**report, **times, "machine": machine, "workers": workers or os.cpu_count()}


def _say(share: float, text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {share:6.1%} {text}\n")


def section(table: Table, report: dict[str, Any], slow: dict[str, Any] | None) -> str:
    """Return the section of one table as Markdown."""
    protocol = report["protocol"]
    n_seeds = protocol["seeds"]
    columns, rows = regret_rows(report)
    rank_column = next(i for i, name in enumerate(columns) if name.startswith("rank"))
    if slow is not None:
        for row in regret_rows(slow)[1]:
            row[rank_column] = "-"  # ranked among itself only
            rows.append([f"{row[0]} ({slow['protocol']['seeds']} seed{'s' if slow['protocol']['seeds'] > 1 else ''})", *row[1:]])
    seeds = f"{n_seeds} seeds" if n_seeds > 1 else "1 seed"
    lines = [f"## {table.name}", "", table.about, ""]
    lines += [
        f"{len(protocol['tasks'])} tasks, {seeds}, {protocol['n_hist']} past runs a task, {protocol['folds']} folds. Import "
        f"{report['import_seconds']:.0f} s; replay {report['wall_seconds']:.0f} s with {report['workers']} process"
        f"{'es' if report['workers'] > 1 else ''} ({report['machine']})."
    ]
    if slow is not None:
        each = {name: item["seconds"] for name, item in slow["methods"].items()}
        lines.append(f"Measured apart: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in each.items())} for its seeds.")
    else:
        lines.append(f"Not measured here, for their cost: {', '.join(SLOW)}.")
    if n_seeds < Protocol().seeds:
        lines.append(f"**{seeds} instead of {Protocol().seeds}**, for the time it takes.")
    lines += ["", *(f"- {note}" for note in protocol["notes"]), *([""] if protocol["notes"] else [])]
    lines += [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)]), *(_line(row) for row in rows), ""]
    if table.reference:
        lines += ["Reference figures for the same protocol:", "", _line(["method", *(c for c in columns if c.startswith("k="))])]
        lines += [_line(["---", *["---:"] * 7]), *(_line([name, *text.split()]) for name, text in table.reference.items()), ""]
    lines += [f"![Regret against evaluations](replay-{table.name}.png)", ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_page(path: Path) -> None:
    """Write docs/replay.md from the explanation that stands in it and the figures of ``build/replay``."""
    mark = "<!-- tables: made by python -m compare_baselines.replay.tables -->"
    head = path.read_text(encoding="utf-8").partition(mark)[0]
    parts = [head + mark + "\n"]
    for table in TABLES:
        report = _load(table.name)
        if report is None:
            parts.append(f"## {table.name}\n\nNot measured yet.\n")
            continue
        parts.append(section(table, report, _load(f"{table.name}-slow")))
        save_picture(report, path.parent / f"replay-{table.name}.png")
    path.write_text("\n".join(parts), encoding="utf-8")


def _load(name: str) -> dict[str, Any] | None:
    path = FIGURES / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def main() -> None:
    """Measure what is asked for and write the page."""
    parser = argparse.ArgumentParser(description="Replay the recorded tables and write docs/replay.md.")
    parser.add_argument("--only", nargs="*", default=[table.name for table in TABLES], help="tables to measure")
    parser.add_argument("--no-slow", action="store_true", help=f"leave out {', '.join(SLOW)}")
    parser.add_argument("--only-slow", action="store_true", help=f"measure {', '.join(SLOW)} only")
    parser.add_argument("--workers", type=int, default=None, help="processes; default one a core")
    parser.add_argument("--write", action="store_true", help="only write the page, from the figures of earlier measurements")
    given = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    for table in () if given.write else [table for table in TABLES if table.name in given.only]:
        fast = [name for name in METHODS if name not in SLOW]
        groups = [] if given.only_slow else [(table.name, fast, table.seeds)]
        groups += [(f"{table.name}-slow", list(SLOW), table.slow_seeds)] if table.slow_seeds and not given.no_slow else []
        for name, methods, seeds in groups:
            report = measure(table, methods, seeds, given.workers)
            (FIGURES / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    write_page(ROOT / "docs" / "replay.md")


if __name__ == "__main__":
    main()
