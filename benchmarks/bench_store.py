"""Bulk writes and a big history: ``python -m benchmarks.bench_store``; see docs/performance.md."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.big_history import N_TASKS, generate, runs
from benchmarks.measuring import Timing, in_turns
from benchmarks.page import markdown_table, measured_on, write_section
from benchmarks.query_plans import explain, generalised
from store import FinishedRun, History
from store.sqlite.bulk import metric_rows
from store.sqlite.operations import Operation, apply_operations, metrics_operation, series_operation
from store.sqlite.schema import METRIC_COLUMNS

LIMIT = 0.8
"""Our bulk writes reach at least this share of the rows per second of a bare ``executemany``."""
OPENING_LIMIT_S, START_LIMIT_S, COMMAND_LIMIT_S = 0.050, 0.020, 0.5

BARE, OURS_FLUSH, OURS_SPOOL, OURS_RUNS, UTILS = (
    "bare sqlite3 executemany",
    "metahp: flush of the writer",
    "metahp: rows that waited in a spool",
    "metahp: add_finished_runs",
    "sqlite-utils insert_all",
)


def bulk(n_runs: int, rows_per_run: int, rounds: int) -> dict[str, float]:
    """Return rows per second of each way to write the same metric rows into the same schema, medians of rounds in turns."""
    finished = list(runs(n_runs, rows_per_run))
    rows = list(metric_rows(finished))

    def into_new(write: Callable[[Path], float]) -> Callable[[], Timing]:
        def call() -> Timing:
            folder = Path(tempfile.mkdtemp(prefix="metahp-benchmark-"))
            try:
                path = folder / "history.db"
                History(path).close()
                cpu = time.process_time()
                return Timing(write(path), time.process_time() - cpu)
            finally:
                shutil.rmtree(folder)

        return call

    ways = {
        BARE: into_new(lambda path: _bare(path, rows)),
        OURS_FLUSH: into_new(lambda path: _apply(path, [operation for run in finished for operation in _logged(run)])),
        OURS_SPOOL: into_new(lambda path: _apply(path, [metrics_operation("", rows)])),
        OURS_RUNS: into_new(lambda path: _finished(path, finished)),
        UTILS: into_new(lambda path: _sqlite_utils(path, rows)),
    }
    measured = in_turns(ways, rounds, note=_note)
    return {name: len(rows) / statistics.median(took.wall_s for took in timings) for name, timings in measured.items()}


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _bare(path: Path, rows: list[tuple[Any, ...]]) -> float:
    connection = _connect(path)
    statement = f"INSERT INTO metrics ({', '.join(METRIC_COLUMNS)}) VALUES ({', '.join('?' * len(METRIC_COLUMNS))})"

    def write() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(statement, rows)
        connection.execute("COMMIT")

    took = _timed(write)
    connection.close()
    return took


def _apply(path: Path, operations: list[Operation]) -> float:
    connection = _connect(path)

    def write() -> None:
        connection.execute("BEGIN IMMEDIATE")
        apply_operations(connection, operations)
        connection.execute("COMMIT")

    took = _timed(write)
    connection.close()
    return took


def _logged(run: FinishedRun) -> Iterator[Operation]:
    """Yield what the writer makes of a run's log calls: the metrics that were logged together, together."""
    together: dict[tuple[int, ...], dict[str, Sequence[float]]] = {}
    for name, curve in run.curves.items():
        together.setdefault(tuple(curve.steps), {})[name] = curve.values
    for steps, series in together.items():
        elapsed_s = run.curves[next(iter(series))].elapsed_s or ()
        yield series_operation(run.id, 0, series, steps, [None] * len(steps), [seconds or 0.0 for seconds in elapsed_s])


def _finished(path: Path, finished: list[FinishedRun]) -> float:
    with History(path) as history:
        return _timed(lambda: history.add_finished_runs(finished))


def _sqlite_utils(path: Path, rows: list[tuple[Any, ...]]) -> float:
    from sqlite_utils import Database

    db: Any = Database(sqlite3.connect(path))
    took = _timed(lambda: db["metrics"].insert_all(dict(zip(METRIC_COLUMNS, row, strict=True)) for row in rows))
    db.conn.commit()
    db.conn.close()
    return took


def bulk_text(speeds: dict[str, float], rows: int) -> str:
    """Return the section on bulk writes."""
    lines = [[name, f"{speed:,.0f}", f"{speed / speeds[BARE]:.2f}"] for name, speed in speeds.items()]
    table = markdown_table(["written by", "rows/s", f"of {BARE}"], lines)
    return f"{measured_on()} {rows:,} metric rows into a new history, in turns, medians.\n\n{table}"


def scale(path: Path, rounds: int) -> tuple[list[list[str]], list[str]]:
    """Return rows of the table of answers on a big history, and what was too slow.

    Args:
        path: An existing history of ``big_history``.
        rounds: How often each is asked.
    """
    with History(path, create=False) as history:
        run_id = history.runs(limit=1, newest_first=True, with_hparams=False)[0].id
        answers = {
            "opening": (lambda: History(path, create=False).close(), OPENING_LIMIT_S),
            "a run starts": (_starter(history), START_LIMIT_S),
            "what changed since the last fit": (history.task_states, None),
        }
        timings = {name: ([_timed(ask) for _ in range(rounds)], limit) for name, (ask, limit) in answers.items()}
    for words in (["runs"], ["show", run_id], ["tasks"]):
        command = [sys.executable, "-m", "metahp_cli", *words, "--history", str(path)]
        # with bytecode, as in an ordinary installation
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        called = [_command(command, environment) for _ in range(rounds + 1)][1:]
        timings[f"metahp {words[0]}"] = ([wall for wall, _ in called], COMMAND_LIMIT_S)
        timings[f"metahp {words[0]}, CPU"] = ([cpu for _, cpu in called], None)
    rows, slow = [], []
    for name, (taken, limit) in timings.items():
        median = statistics.median(taken)
        rows.append([name, f"{1000 * median:.1f}", "" if limit is None else f"{1000 * limit:.0f}"])
        if limit is not None and median > limit:
            slow.append(name)
    return rows, slow


def _starter(history: History) -> Callable[[], None]:
    def start() -> None:
        started.append(history.start_run(task="task-003", hparams={"lr": 0.1, "batch_size": 32}, objective="val_loss"))
        if len(started) > 1:
            started[-2].finish("interrupted")

    started: list[Any] = []
    return start


def _command(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def learning_s(path: Path) -> tuple[float, float]:
    """Return the seconds that reading everything to learn from takes, and that reading it again does."""
    from metamodel.data.learning_tables import learning_table

    with History(path, create=False) as history:
        first = _timed(lambda: learning_table(history))
        with history.start_run(task="task-003", hparams={"lr": 0.1}, objective="val_loss") as run:
            run.log(val_loss=0.5)
        return first, _timed(lambda: learning_table(history))


def plans_text(path: Path) -> tuple[str, list[str]]:
    """Return the section on query plans, and the full scans in them."""
    with History(path, create=False) as history:
        run_id = history.runs(limit=1, with_hparams=False)[0].id
        plans = explain(history, run_id, "task-003")
    parts = []
    for question in dict.fromkeys(plan.question for plan in plans):
        lines = [
            f"{_shortened(plan.statement)}\n" + "\n".join(f"    {step}" for step in plan.steps)
            for plan in plans
            if plan.question == question
        ]
        parts.append(f"**{question}**\n\n```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts), [f"{plan.question}: {step}" for plan in plans for step in plan.full_scans]


def _shortened(statement: str) -> str:
    text = generalised(statement)
    return text if len(text) <= 110 else text[:107] + "..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page with ``--write``; 1 if something is slower than it may be."""
    options = _parse(arguments)
    problems: list[str] = []
    if not options.only_scale:
        speeds = bulk(options.bulk_runs, 200, options.rounds)
        text = bulk_text(speeds, options.bulk_runs * 200)
        sys.stdout.write(text + "\n\n")
        problems += [name for name in (OURS_FLUSH, OURS_SPOOL, OURS_RUNS) if speeds[name] < LIMIT * speeds[BARE]]
        if options.write:
            write_section("bulk", text)
    folder = Path(tempfile.mkdtemp(prefix="metahp-benchmark-"))
    try:
        path = options.history or folder / "history.db"
        if options.history is None:
            generate(path, options.runs, options.rows_per_run)
        connection = sqlite3.connect(path)
        n_runs, n_rows = (connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "metrics"))
        connection.close()
        answers, slow = scale(path, options.rounds)
        first_s, again_s = learning_s(path)
        answers += [["reading all to learn from, s", f"{first_s:.1f}", ""], ["again after one more run, s", f"{again_s:.1f}", ""]]
        plans, scans = plans_text(path)
        problems += slow + scans
        size = path.stat().st_size
        text = (
            f"{measured_on()} A generated history of {n_runs:,} runs of {N_TASKS} tasks and {n_rows:,} metric rows: "
            f"{size / 2**30:.2f} GiB, {size / n_rows:.0f} bytes per metric row, all else included. Medians of {options.rounds}.\n\n"
            + markdown_table(["answer", "ms", "at most"], answers)
        )
        sys.stdout.write(f"{text}\n\n{plans}\n")
        if options.write:
            write_section("scale", text)
            write_section("plans", plans)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for problem in problems:
        _note(f"too slow, or a full scan: {problem}")
    return int(bool(problems) and not options.lenient)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_store", description=__doc__)
    parser.add_argument("--history", type=Path, help="an existing generated history instead of a new one")
    parser.add_argument("--runs", type=int, default=100_000, help="runs of the generated history")
    parser.add_argument("--rows-per-run", type=int, default=200, help="metric rows of each")
    parser.add_argument("--bulk-runs", type=int, default=1_000, help="runs of the bulk writes")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--only-scale", action="store_true", help="leave out the bulk writes")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--lenient", action="store_true", help="exit with 0 also where something is too slow")
    return parser.parse_args(arguments)


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
