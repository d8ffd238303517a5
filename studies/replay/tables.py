"""The tables of docs/replay.md: ``python -m studies.replay.tables``, or ``make replay``.

The recorded tables are no part of this project; they are looked for in ``$METAHP_SHARED_DATA``, else in ``../shared/data``. Those of the
shipped networks are in the package. Figures are kept as JSON in ``build/replay``, so that the page can be written again without measuring
(``--write``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare_baselines.methods.registry import METHODS
from compare_baselines.replay.protocol import Benchmark, Protocol, load_benchmark
from compare_baselines.replay.report import regret_rows, save_picture, show_regret, shown_evaluations
from compare_baselines.replay.runner import merge_reports, run_replay
from compare_baselines.replay.scenarios import SCENARIOS, with_scenario
from metamodel.kinds import DEFAULT as OURS
from store import History, InvalidArgumentError
from store.importers.table import TableColumns, import_table
from studies.replay import shipped

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "build" / "replay"
SLOW = ("gp",)
"""Methods that are measured apart."""
SCENARIO_METHODS = ("random", "best-of-past", "quantile", "zero-shot", "rgpe", "plain-gp", "metahp")
SCENARIO_SHOWN = (1, 5, 16, 32)
QUICK_SEEDS = 1


def lcbench_space() -> dict[str, BaseDistribution]:
    """Return the scales that the authors of lcbench give."""
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


@dataclass(frozen=True, slots=True)
class RecordedTable:
    """One recorded table: its file, or the family of shipped networks; what its columns mean; and how it is replayed."""

    name: str
    file: str
    columns: TableColumns
    join: tuple[str, str] | None = None
    features: tuple[str, str] | None = None
    seeds: int = 3
    slow_seeds: int = 3
    has_space: bool = False
    family: str | None = None
    n_hist: int = Protocol().n_hist
    about: str = ""
    reference: dict[str, str] = field(default_factory=dict)


LCBENCH_HPARAMS = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")
FOREST_HPARAMS = ("bootstrap", "criterion", "max_features", "min_samples_leaf", "min_samples_split", "n_estimators", "imputation")
LCBENCH_REFERENCE = {
    "random": "1.165 .808 .666 .539 .456 .364 .288",
    "tpe": "1.440 .751 .731 .652 .384 .272 .200",
    "gp": ".735 .677 .632 .589 .433 .215 .075",
    "best-of-past": ".846 .423 .373 .246 .174 .075 .071",
    "quantile": ".665 .511 .410 .338 .217 .126 .087",
    "zero-shot": ".387 .269 .240 .173 .102 .074 .066",
    "pre-trained GP, plain": ".242 .165 .110 .080 .063 .040 .009",
}
"""Reference figures for ``lcbench`` at k = 1, 2, 3, 5, 8, 16, 32."""
RECORDED = (
    RecordedTable(
        "lcbench",
        "lcbench/curves.parquet",
        TableColumns("task", "config_id", LCBENCH_HPARAMS, "val_accuracy", "max", "epoch", "time"),
        ("lcbench/configs.parquet", "config_id"),
        ("lcbench/tasks.parquet", "task"),
        has_space=True,
        about="Fully connected networks on 24 tasks, `val_accuracy` at epoch 51; scales as the data's authors give them.",
        reference=LCBENCH_REFERENCE,
    ),
    RecordedTable(
        "hpobench_mlp",
        "hpobench_mlp.parquet",
        TableColumns("task", "config_id", ("alpha", "batch_size", "depth", "learning_rate_init", "width"), "balanced_accuracy", "max"),
        about="Fully connected networks of scikit-learn on 8 tasks, `balanced_accuracy`; every task has its own 4,000 configurations.",
    ),
    RecordedTable(
        "openml_random_forest",
        "openml_random_forest.parquet",
        TableColumns("task", "run", FOREST_HPARAMS, "accuracy", "max"),
        None,
        ("openml_metafeatures.parquet", "task"),
        slow_seeds=1,
        about="Random forests on 94 tasks, `accuracy` of 10-fold cross-validation; gains are small there.",
    ),
)
SHIPPED = tuple(
    RecordedTable(
        f"shipped_{family}",
        f"{family}.parquet",
        shipped.COLUMNS,
        slow_seeds=0,
        family=family,
        n_hist=n_hist,
        about=f"The shipped networks ({family}), trained for seconds on small data; each task has its own {n_runs} configurations.",
    )
    for family, n_runs, n_hist in (("mlp", 128, 50), ("cnn", 64, 30), ("rnn", 64, 30), ("transformer", 64, 30))
)
REPLAY_TABLES = (*RECORDED, *SHIPPED)


def data_folder() -> Path:
    """Return the folder with the recorded tables.

    Raises:
        InvalidArgumentError: If it is not there.
    """
    folder = Path(os.environ.get("METAHP_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise InvalidArgumentError(f"The recorded tables must be in {folder}, but it is no folder. Set METAHP_SHARED_DATA to theirs.")
    return folder


@contextmanager
def load_table(table: RecordedTable, seeds: int) -> Iterator[tuple[History, Benchmark]]:
    """Import a table into a history of its own and read its pools.

    Raises:
        InvalidArgumentError: If the recorded tables are not there.
    """
    folder = data_folder() if table.family is None else None
    with tempfile.TemporaryDirectory(prefix="metahp-tables-") as temporary, History(Path(temporary) / "history.db") as history:
        if folder is None:
            folder = Path(temporary)
            shipped.write_table(str(table.family), folder / table.file)
        join = None if table.join is None else (folder / table.join[0], table.join[1])
        features = None if table.features is None else (folder / table.features[0], table.features[1])
        import_table(history, folder / table.file, table.columns, join=join, task_features=features)
        yield history, load_benchmark(history, Protocol(table.n_hist, seeds=seeds), lcbench_space() if table.has_space else None)


def measure(
    table: RecordedTable, methods: Sequence[str], seeds: int, workers: int | None = None, scenarios: Sequence[str] = ("",)
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Import a table into a history of its own and replay it, in each scenario asked for; an empty name is the protocol itself.

    Yields:
        The name of the scenario, and
        The report of ``run_replay`` with ``import_seconds``, ``wall_seconds`` and ``machine``.
    """
    started = time.perf_counter()
    with load_table(table, seeds) as (history, benchmark):
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        about = {"import_seconds": time.perf_counter() - started, "machine": machine, "workers": workers or os.cpu_count()}
        for name in scenarios:
            begun = time.perf_counter()
            chosen = with_scenario(history, benchmark, name) if name else benchmark
            report = run_replay(chosen, methods, workers=workers, progress=_say, keeps_seeds=True)
            yield name, {**report, **about, "wall_seconds": time.perf_counter() - begun}


def _say(share: float, text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {share:6.1%} {text}\n")


def section(table: RecordedTable, report: dict[str, Any], slow: dict[str, Any] | None) -> str:
    """Return the section of one table as Markdown."""
    protocol = report["protocol"]
    n_seeds = protocol["seeds"]
    is_apart = slow is not None and slow["protocol"]["seeds"] != n_seeds
    if slow is not None and not is_apart:
        report = merge_reports(report, slow)
    columns, rows = regret_rows(report)
    if slow is not None and is_apart:
        rank_column = next(i for i, name in enumerate(columns) if name.startswith("rank"))
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
    lines += [f"{name} was measured again later, in {seconds:.0f} s." for name, seconds in report.get("again", {}).items()]
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
    if table.family is None:
        lines += [f"![Regret against evaluations](replay-{table.name}.png)", ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def scenario_section(table: RecordedTable, reports: Mapping[str, dict[str, Any]]) -> str:
    """Return the section of the scenarios measured on one table as Markdown."""
    lines = ["## Scenarios" if table.name == REPLAY_TABLES[0].name else f"## Scenarios on {table.name}", ""]
    lines += ["What real histories are like (`--scenario NAME`). Each changes the data, by a seed, and nothing in a method:", ""]
    lines += [f"- `{name}`: {SCENARIOS[name].about}" for name in reports]
    first = next(iter(reports.values()))
    protocol = first["protocol"]
    lines += [
        "",
        f"On `{table.name}`, {len(protocol['tasks'])} tasks, {protocol['seeds']} seed{'s' if protocol['seeds'] > 1 else ''}. Regret of",
    ]
    lines[-1] += (
        " `metahp` and of the best peer at that number of evaluations, and the difference with its paired 95 % interval over tasks;"
    )
    lines += ["below 0 `metahp` is better.", ""]
    lines += [
        _line(["scenario", "k", "metahp", "best peer", "its regret", "difference", "minus plain-gp"]),
        _line(["---", "---:", "---:", "---", *["---:"] * 3]),
    ]
    for name, report in reports.items():
        for k in (k for k in SCENARIO_SHOWN if k in shown_evaluations(len(report["random_exact"]))):
            entry = report["comparison"][k - 1]
            plain = entry.get("plain")
            regrets = [report["methods"][each]["regret"][k - 1] for each in (OURS, entry["best_peer"])]
            cells = [name, str(k), show_regret(regrets[0]), entry["best_peer"], show_regret(regrets[1]), _signed(entry)]
            lines.append(_line([*cells, _signed(plain) if plain else "-"]))
    failed = {name: item["failed"] for name, item in reports.get("failures", {}).get("methods", {}).items() if item.get("failed")}
    if failed:
        each = ", ".join(f"{name} {counts[-1]:.1f}" for name, counts in sorted(failed.items(), key=lambda pair: pair[1][-1]))
        lines += ["", f"Failed runs among the {len(first['random_exact'])} proposed in `failures`: {each}; random search expects 15 %."]
    return "\n".join([*lines, ""])


def _signed(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def write_page(path: Path) -> None:
    """Write docs/replay.md from the explanation that stands in it and the figures of ``build/replay``."""
    mark = "<!-- tables: made by python -m studies.replay.tables -->"
    head = path.read_text(encoding="utf-8").partition(mark)[0]
    parts = [head + mark + "\n"]
    for table in REPLAY_TABLES:
        report = _load(table.name)
        if report is None:
            parts.append(f"## {table.name}\n\nNot measured yet.\n")
            continue
        parts.append(section(table, report, _load(f"{table.name}-slow")))
        slow = _load(f"{table.name}-slow")
        is_whole = slow is not None and slow["protocol"]["seeds"] == report["protocol"]["seeds"]
        if table.family is None:
            save_picture(merge_reports(report, slow) if slow is not None and is_whole else report, path.parent / f"replay-{table.name}.png")
    for table in REPLAY_TABLES:
        reports = {name: _load(f"{table.name}-scenario-{name}") for name in SCENARIOS}
        measured = {name: report for name, report in reports.items() if report is not None}
        if measured:
            parts.append(scenario_section(table, measured))
    path.write_text("\n".join(parts), encoding="utf-8")


def _load(name: str) -> dict[str, Any] | None:
    path = FIGURES / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def main() -> None:
    """Measure what is asked for and write the page."""
    parser = argparse.ArgumentParser(description="Replay the recorded tables and write docs/replay.md.")
    parser.add_argument("--only", nargs="*", default=None, help="tables to measure; default all, or lcbench for scenarios")
    parser.add_argument("--methods", type=_names, default=None, help="measure these only, and put them into the figures already there")
    parser.add_argument("--no-slow", action="store_true", help=f"leave out {', '.join(SLOW)}")
    parser.add_argument("--only-slow", action="store_true", help=f"measure {', '.join(SLOW)} only")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seed, without the slow ones")
    parser.add_argument("--scenarios", type=_names, default=None, metavar="LIST", help="measure these scenarios instead, or all")
    parser.add_argument("--workers", type=int, default=None, help="processes; default one a core")
    parser.add_argument("--write", action="store_true", help="only write the page, from the figures of earlier measurements")
    given = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    only = given.only or ([REPLAY_TABLES[0].name] if given.scenarios else [table.name for table in REPLAY_TABLES])
    for table in () if given.write else [table for table in REPLAY_TABLES if table.name in only]:
        seeds = QUICK_SEEDS if given.quick else table.seeds
        if given.scenarios:
            chosen = list(SCENARIOS) if given.scenarios == ["all"] else given.scenarios
            for name, report in measure(table, given.methods or SCENARIO_METHODS, seeds, given.workers, chosen):
                _store(f"{table.name}-scenario-{name}", report, is_part=given.methods is not None)
            continue
        fast = given.methods or [name for name in METHODS if name not in SLOW]
        groups = [] if given.only_slow else [(table.name, fast, seeds)]
        has_slow = table.slow_seeds and not (given.no_slow or given.quick or given.methods)
        groups += [(f"{table.name}-slow", list(SLOW), table.slow_seeds)] if has_slow else []
        for file, methods, n_seeds in groups:
            for _, report in measure(table, methods, n_seeds, given.workers):
                _store(file, report, is_part=given.methods is not None)
    write_page(ROOT / "docs" / "replay.md")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _store(name: str, report: dict[str, Any], *, is_part: bool) -> None:
    """Keep figures; a part is put into those already there."""
    old = _load(name) if is_part else None
    if old is not None:
        again = {**old.get("again", {}), **dict.fromkeys(report["methods"], report["wall_seconds"])}
        report = {**merge_reports(old, report), "again": again}
    (FIGURES / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
