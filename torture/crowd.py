"""Many processes at once: a first start of all of them together, writers, readers, and a refit."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from store import History
from torture.kills import is_sound
from torture.trials import Trials

_CROWD_WRITER = """
import sys, time
from store import History
path, number, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
with History(path) as history:
    for index in range(runs):
        hparams = {"lr": 10 ** -(1 + (index + number) % 4 / 2), "worker": number}
        with history.start_run(task=f"task-{number % 3}", hparams=hparams, objective="acc") as run:
            for step in range(steps):
                run.log(acc=step / steps - abs(hparams["lr"] - 0.01), step=step)
"""
_READER = """
import sys, time
from store import History
print("ready", flush=True)
sys.stdin.readline()
seen = 0
with History(sys.argv[1]) as history:
    while not open(sys.argv[2]).read():
        runs = history.runs(limit=50, newest_first=True)
        history.tasks()
        if runs:
            history.metrics(runs[0].id)
        assert len(history.runs(with_hparams=False)) >= seen
        seen = len(history.runs(with_hparams=False))
        time.sleep(0.05)
"""
_REFIT = """
import sys, time
import torch
from metamodel import refit
from store import History
torch.set_num_threads(1)
print("ready", flush=True)
sys.stdin.readline()
with History(sys.argv[1]) as history:
    while len(history.runs(status="completed", with_hparams=False)) < 60:
        time.sleep(0.2)
    model = refit(history)
    print(model.info["n_finished"], flush=True)
"""


def crowd(folder: Path, *, processes: int = 16, runs: int = 1_000, steps: int = 10, readers: int = 2, with_refit: bool = True) -> Trials:
    """Let processes write runs into a history that none of them finds there, while others read it."""
    what = f"{processes} processes start together and write {runs} runs" + (", readers list, a refit reads" if with_refit else "")
    outcome = Trials(what, "nothing lost, nothing spooled, no 'database is locked'", 1)
    path, done = folder / "history.db", folder / "done"
    done.write_text("")
    shares = [runs // processes + (number < runs % processes) for number in range(processes)]
    writers = [_start(_CROWD_WRITER, path, number, share, steps) for number, share in enumerate(shares)]
    others = [_start(_READER, path, done) for _ in range(readers)] + ([_start(_REFIT, path)] if with_refit else [])
    for process in (*writers, *others):
        assert process.stdout is not None
        assert process.stdin is not None
        outcome.expect(process.stdout.readline() == "ready\n", "a process did not start")
    started = time.perf_counter()
    for process in (*writers, *others):
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=600)[1] for process in writers]
    took_s = time.perf_counter() - started
    done.write_text("yes")
    results = [process.communicate(timeout=600) for process in others]
    errors += [error for _, error in results]
    for process, error in zip((*writers, *others), errors, strict=True):
        outcome.expect(process.returncode == 0, f"a process ended with {process.returncode}: {error[-300:]}")
        outcome.expect(not re.search("locked|StorageWarning|spool", error), f"a process complained: {error[:300]}")
    outcome.expect(not Path(f"{path}.spool").exists(), "something is left in the spool")
    connection = sqlite3.connect(path)
    counts = [connection.execute(query).fetchone()[0] for query in _CROWD_COUNTS]
    connection.close()
    outcome.expect(counts == [runs, runs, runs * 2, runs * steps], f"{counts}")
    outcome.expect(is_sound(path), "integrity_check")
    with History(path) as history:
        outcome.expect(len(history.tasks()) == min(3, processes), "a task is missing")
    outcome.figures = f"{runs} runs in {took_s:.1f} s"
    if with_refit:
        outcome.figures += f"; the refit learned from {results[-1][0].strip() or 'nothing'}"
    return outcome


_CROWD_COUNTS = (
    "SELECT count(*) FROM runs",
    "SELECT count(*) FROM runs WHERE status = 'completed'",
    "SELECT count(*) FROM hparams",
    "SELECT count(*) FROM metrics",
)


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
