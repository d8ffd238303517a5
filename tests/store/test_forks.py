"""Forks while runs are logged: whatever our threads do in SQLite at that moment, no child waits for a lock of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from store import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

N_FORKS = 300
LIMIT_S = 120.0

FORKS_OFTEN = """
import os, signal, sqlite3, sys, threading, time
from pathlib import Path
from store import History
from store.ids import new_id
from store.recording import writer

history_path, other_path, n_forks = sys.argv[1], sys.argv[2], int(sys.argv[3])
writer.FLUSH_INTERVAL_S = 0.0  # the thread is in SQLite nearly all the time
with sqlite3.connect(other_path) as other:
    other.execute("CREATE TABLE samples (x)")
    other.execute("INSERT INTO samples VALUES (1)")
other.close()


def read(history):
    while True:
        history.runs()


def log(run):
    while True:
        run.log({f"m{i}": 0.5 for i in range(20)})
        time.sleep(0.0005)


def child(history):
    with sqlite3.connect(other_path) as other:
        assert other.execute("SELECT x FROM samples").fetchone() == (1,)
    assert new_id()
    assert history.runs()[0].task_name == "t"
    with History(history_path) as own:
        assert own.runs()[0].task_name == "t"
    history.close()


history = History(history_path)
run = history.start_run(task="t", objective="val_acc")
threading.Thread(target=log, args=(run,), daemon=True).start()
threading.Thread(target=read, args=(history,), daemon=True).start()
for number in range(n_forks):
    pid = os.fork()
    if pid == 0:
        try:
            child(history)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + 20
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            print(f"child {number} of {n_forks} hung", flush=True)
            os._exit(2)
        time.sleep(0.001)
    if done[1]:
        print(f"child {number} of {n_forks} failed", flush=True)
        os._exit(3)
run.finish("completed")
print("all ended", flush=True)
"""


def test_a_child_forked_amid_constant_logging_opens_the_same_and_another_database(tmp_path: Path) -> None:
    program = [sys.executable, "-c", FORKS_OFTEN, str(tmp_path / "history.db"), str(tmp_path / "other.db"), str(N_FORKS)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT_S, env=os.environ | {"METAHP_RESOURCES_S": "0.05"})
    assert done.stdout == "all ended\n", done.stdout + done.stderr


def fork_and_reap() -> float:
    """Seconds that a fork takes in the parent; the child ends at once."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(0)
    seconds = time.monotonic() - start
    os.waitpid(child, 0)
    return seconds


def test_a_fork_waits_for_a_thread_in_sqlite_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "FORK_WAIT_S", 0.2)
    is_inside, may_leave = threading.Event(), threading.Event()

    def stay() -> None:
        with forks.using_sqlite():
            is_inside.set()
            may_leave.wait(60)

    thread = threading.Thread(target=stay)
    thread.start()
    assert is_inside.wait(60)
    assert fork_and_reap() >= 0.2
    may_leave.set()
    thread.join()
    monkeypatch.setattr(forks, "FORK_WAIT_S", 60.0)
    assert fork_and_reap() < 60.0


def test_a_thread_that_is_itself_in_sqlite_may_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "FORK_WAIT_S", 60.0)
    with forks.using_sqlite(), forks.using_sqlite():
        assert fork_and_reap() < 60.0
