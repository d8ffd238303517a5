"""``kill -9`` at random moments: of writing, of the first opening, of taking in a spool."""

from __future__ import annotations

import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from store import History, RunStatus
from store.recording import spool
from store.sqlite.operations import metrics_operation, run_operation
from torture.trials import Trials

_ENTRY = struct.Struct("qd")
FLUSH_S = 1.0
_SLACK_S = 0.75
"""What a flush itself, and being scheduled on a busy machine, may take on top of the interval."""

_ENOUGH = 20
"""Tries after which none at the right moment is no bad luck any more."""

_LOGGER = """
import os, struct, sys, time
from store import History
from store.recording.writer import Writer
side, flushed = (os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for name in sys.argv[2:])
flush, count = Writer.flush, 0
def note(*arguments, **named):
    before = count
    if is_written := flush(*arguments, **named):
        os.write(flushed, struct.pack("q", before))
    return is_written
Writer.flush = note
history = History(sys.argv[1])
run = history.start_run(task="killed", hparams={"lr": 0.1}, objective="acc")
print(run.id, flush=True)
while True:
    os.write(side, struct.pack("qd", count, time.monotonic()))
    run.log(acc=float(count), loss=1.0, step=count)
    count += 1
    time.sleep(0.002)
"""

_OPENER = "import sys; from store import History; History(sys.argv[1]).close()"


def _python(code: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def is_sound(path: Path) -> bool:
    """Return whether SQLite finds nothing wrong with a file."""
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"]
    finally:
        connection.close()


def kill_while_writing(
    folder: Path, tries: int, *, parallel: int = 3, longest_s: float = 3.5, is_timed: bool = True, seed: int = 0
) -> Trials:
    """Kill processes that log, at random moments from their start on; all of them write into one history.

    Args:
        folder: Empty folder.
        tries: How many processes.
        parallel: How many at once.
        longest_s: The latest moment.
        is_timed: Whether more than a second lost is a failure: on a machine that others keep busy a flush may be late.
        seed: Of the moments.
    """
    must = "opens, integrity_check ok, at most 1 s of metrics gone, stale, resume goes on"
    outcome = Trials("kill -9 while writing", must, tries)
    path = folder / "history.db"
    History(path).close()
    chance = random.Random(seed)
    moments = [chance.uniform(0.0, longest_s) for _ in range(tries)]
    lost: list[float] = []

    def one(index: int) -> None:
        side, flushed = folder / f"side-{index}", folder / f"flushed-{index}"
        process = _python(_LOGGER, path, side, flushed)
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()  # counted from here: before, there is no run to lose
        time.sleep(moments[index])
        _kill(process)
        entries = list(_ENTRY.iter_unpack(side.read_bytes()[: side.stat().st_size // _ENTRY.size * _ENTRY.size]))
        with History(path) as history:
            outcome.expect(history.run(run_id).status is RunStatus.STALE, f"{run_id} is {history.run(run_id).status}")
            steps = [record.step for record in history.metrics(run_id, "acc")]
            outcome.expect(steps == list(range(len(steps))), f"{run_id} has gaps")
            counts = flushed.read_bytes()
            n_flushed = struct.unpack("q", counts[-8:])[0] if counts else 0
            outcome.expect(len(steps) >= n_flushed, f"{run_id} has {len(steps)} of {n_flushed} values that were flushed")
            if entries:
                # what was logged last is behind the side file by one step at most
                first_lost = entries[len(steps)][1] if len(steps) < len(entries) else entries[-1][1]
                lost.append(entries[-1][1] - first_lost)
            run = history.start_run(resume=run_id)
            run.log(acc=-1.0, loss=0.5)
            run.finish()
            record = history.run(run_id)
            outcome.expect((record.status, record.attempt) == (RunStatus.COMPLETED, 1), f"{run_id} did not go on")
            outcome.expect(len(history.metrics(run_id, "acc")) == len(steps) + 1, f"{run_id} lost values by going on")
        side.unlink()
        flushed.unlink()

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(one, range(tries)))
    outcome.expect(is_sound(path), "integrity_check")
    with History(path) as history:
        outcome.expect(len(history.runs()) == tries, f"{len(history.runs())} of {tries} runs")
    worst = max(lost, default=0.0)
    outcome.expect(not is_timed or worst <= FLUSH_S + _SLACK_S, f"{worst:.2f} s were lost")
    outcome.figures = f"lost at most {worst:.2f} s, {sum(lost) / max(len(lost), 1):.2f} s on average"
    return outcome


def kill_while_creating(folder: Path, tries: int, *, seed: int = 1) -> Trials:
    """Kill processes that open a history for the first time, which creates its tables."""
    outcome = Trials("kill -9 while the tables are created", "the next opening creates what is missing", tries)
    chance = random.Random(seed)
    n_half = 0
    longest_s = max(_seconds_to_create(folder / f"timed-{index}.db") for index in range(3))
    for index in range(tries):
        path = folder / f"new-{index}.db"
        process = _begin_to_create(path)
        time.sleep(chance.uniform(0.0, longest_s))
        _kill(process)
        n_half += not _has_tables(path)
        with History(path) as history, history.start_run(task="t") as run:
            run.log(loss=1.0)
        outcome.expect(is_sound(path), f"integrity_check of {path.name}")
    outcome.expect(n_half > 0 or tries < _ENOUGH, f"none of {tries} kills came before the tables were complete: nothing was tried")
    outcome.figures = f"{n_half} times before the tables were complete"
    return outcome


def _begin_to_create(path: Path) -> subprocess.Popen[str]:
    """Start a process that opens a new history; return when its file is there, still empty."""
    process = _python(_OPENER, path)
    while not path.exists() and process.poll() is None:
        pass  # every sleep would outlast what is to be interrupted
    return process


def _seconds_to_create(path: Path) -> float:
    """Return how long a process takes from the empty file to the end of its work."""
    process = _begin_to_create(path)
    begun = time.perf_counter()
    while process.poll() is None and not _has_tables(path):
        pass
    took = time.perf_counter() - begun
    process.communicate()
    return took


def _has_tables(path: Path) -> bool:
    if not path.exists():
        return False
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def kill_while_ingesting(folder: Path, tries: int, *, runs: int = 12, values: int = 2_000, seed: int = 2) -> Trials:
    """Kill a process that takes in a spool, then let two at once take in the rest."""
    outcome = Trials("kill -9 while a spool is taken in, then two openings at once", "everything is in once, no file is left", tries)
    chance = random.Random(seed)
    n_interrupted = 0
    for index in range(tries):
        path = folder / f"spooled-{index}.db"
        History(path).close()
        expected = fill_spool(path, runs, values)
        process = _python(_OPENER, path)
        while process.poll() is None and len(list(spool.spool_directories(path)[0].glob("*.jsonl"))) == runs:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0.0, 0.25))
        _kill(process)
        n_interrupted += spool.has_waiting(path)
        openers = [_python(_OPENER, path) for _ in range(2)]
        errors = [opener.communicate(timeout=120)[1] for opener in openers]
        outcome.expect(not any(errors), f"an opening complained: {errors}")
        outcome.expect(not spool.has_waiting(path), "files are left")
        connection = sqlite3.connect(path)
        found = connection.execute("SELECT count(*), sum(value) FROM metrics").fetchone()
        n_runs = connection.execute("SELECT count(*) FROM runs WHERE status = 'completed'").fetchone()[0]
        connection.close()
        outcome.expect((*found, n_runs) == (*expected, runs), f"{found} and {n_runs} runs, but {expected} and {runs} were spooled")
        outcome.expect(is_sound(path), "integrity_check")
    outcome.figures = f"{n_interrupted} times in the middle"
    return outcome


def fill_spool(path: Path, runs: int, values: int) -> tuple[int, float]:
    """Put runs into the spool of a history; return how many values they have and their sum."""
    for number in range(runs):
        run_id = f"r{number:04d}"
        row = {"id": run_id, "task_id": "t1", "status": "completed", "started_utc": "2025", "revision": 1, "hparams_revision": 1}
        task = {"id": "t1", "name": "t", "is_named": 1, "identity_json": "{}"}
        operations = [run_operation(row, task, [[run_id, "learning_rate", "lr", "0.1", "user", None, None]])]
        rows = [[run_id, "loss", 0, step, None, float(step), "finite", 0.0] for step in range(values)]
        operations += [metrics_operation(run_id, rows[start : start + 100]) for start in range(0, values, 100)]
        spool.append(path, operations)
    return runs * values, float(runs * sum(range(values)))
