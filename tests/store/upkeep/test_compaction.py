from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import History, InvalidArgumentError, RunRecorder, compact, vacuum_history
from store.upkeep.compaction import MIN_POINTS, is_step_curve, thin

VALUES = st.lists(st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, 1.0]), st.none()), max_size=300)


def trained(history: History, n_steps: int = 500, task: str = "t") -> RunRecorder:
    with history.start_run(task=task, hparams={"lr": 0.1}, objective="acc") as run:
        for step in range(n_steps):
            run.log(loss=1 / (step + 1), acc=step / n_steps, step=step, epoch=step / 50)
            run.log_given({"val_loss": 2 / (step + 1), "nan": float("nan") if 100 <= step < 200 else 1.0}, step, step / 50)
            if step % 50 == 49:
                run.log(lr=0.1, step=step, epoch=(step + 1) / 50)
    return run


def counts(history: History, run_id: str) -> dict[str, int]:
    return {name: len(history.metrics(run_id, name)) for name in history.metric_names(run_id)}


@given(VALUES, st.integers(MIN_POINTS, 60))
def test_straight_lines_through_what_stays_are_never_further_off_than_a_bucket_is_wide(values: list[float | None], keep: int) -> None:
    kept = thin(values, keep)
    assert kept == sorted(set(kept))
    n, n_buckets = len(values), keep // 4
    borders = sum((one is None) != (other is None) for one, other in pairwise(values))
    assert len(kept) <= (keep if n > keep else n) + 2 * borders + 2
    if n <= keep:
        assert kept == list(range(n))
        return
    assert {0, n - 1} <= set(kept)
    for bucket in range(n_buckets):
        first, end = bucket * n // n_buckets, (bucket + 1) * n // n_buckets
        inside = [value for value in values[first:end] if value is not None]
        for index in range(first, end):
            value = values[index]
            if value is None or index in kept:
                continue
            left = max(item for item in kept if item < index)
            right = min(item for item in kept if item > index)
            one, other = values[left], values[right]
            assert one is not None
            assert other is not None
            drawn = one + (other - one) * (index - left) / (right - left)
            assert abs(drawn - value) <= (max(inside) - min(inside)) * (1 + 1e-9) + 1e-9


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300), st.integers(MIN_POINTS, 60))
def test_the_smallest_and_the_largest_value_stay(values: list[float], keep: int) -> None:
    kept = [values[index] for index in thin(values, keep)]
    assert (min(kept), max(kept), kept[0], kept[-1]) == (min(values), max(values), values[0], values[-1])


def test_nothing_changes_unless_it_is_asked_for(history: History) -> None:
    run = trained(history)
    before = counts(history, run.id)
    planned = compact(history, keep_points=40)
    assert counts(history, run.id) == before
    assert not planned.is_done
    assert (planned.n_runs, planned.n_curves) == (1, 2)
    assert planned.bytes_freed > 50 * planned.rows_freed
    done = compact(history, keep_points=40, is_dry=False)
    assert done.is_done
    assert (
        (done.rows_before, done.rows_freed)
        == (planned.rows_before, planned.rows_freed)
        == (2010, 2010 - sum(counts(history, run.id).values()))
    )


def test_step_curves_become_short_and_all_that_decides_stays(history: History) -> None:
    run = trained(history)
    record, loss = history.run(run.id), history.metrics(run.id, "loss")
    compact(history, keep_points=40, is_dry=False)
    assert history.run(run.id) == record
    after = counts(history, run.id)
    assert (after["acc"], after["val_loss"], after["lr"]) == (500, 500, 10)
    assert after["loss"] <= 40
    short = history.metrics(run.id, "loss")
    assert set(short) <= set(loss)
    assert (short[0], short[-1]) == (loss[0], loss[-1])
    nan = [value.step for value in history.metrics(run.id, "nan") if value.value != value.value]
    assert nan[0] == 100
    assert nan[-1] == 199


def test_a_run_says_that_it_was_compacted_and_is_not_looked_at_again(history: History) -> None:
    run = trained(history)
    done = compact(history, keep_points=40, is_dry=False)
    with history._reading() as connection:
        (row,) = connection.execute("SELECT run_id, method, points, rows_before, rows_after FROM compactions").fetchall()
    assert tuple(row) == (run.id, "m4", 40, done.rows_before, done.rows_before - done.rows_freed)
    assert compact(history, keep_points=40, is_dry=False).n_runs == 0
    assert compact(history, keep_points=8).n_runs == 1


def test_running_and_stale_runs_are_never_touched(history: History) -> None:
    code = (
        "import os, sys; from store import History; run = History(sys.argv[1]).start_run(task='t')\n"
        "for step in range(300): run.log(loss=float(step), step=step)\n"
        "run._writer.flush(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(history.path)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    open_run = history.start_run(task="t")
    for step in range(300):
        open_run.log(loss=float(step), step=step)
    assert {str(run.status) for run in history.runs()} == {"running", "stale"}
    assert compact(history, keep_points=40, is_dry=False).n_runs == 0
    assert all(counts(history, run.id) == {"loss": 300} for run in history.runs())
    open_run.finish()
    assert compact(history, keep_points=40, is_dry=False).n_runs == 1


def test_task_and_age_choose_the_runs(history: History) -> None:
    chosen, other = trained(history, task="a"), trained(history, task="b")
    assert compact(history, keep_points=40, older_than=timedelta(days=1)).n_runs == 0
    assert compact(history, keep_points=40, older_than=timedelta(0)).n_runs == 2
    assert compact(history, keep_points=40, task="a", is_dry=False).n_runs == 1
    assert counts(history, chosen.id)["loss"] <= 40
    assert counts(history, other.id)["loss"] == 500


def test_too_few_points_are_refused(history: History) -> None:
    with pytest.raises(InvalidArgumentError, match="at least 8 points"):
        compact(history, keep_points=3)


@pytest.mark.parametrize(
    ("name", "is_step"),
    [
        ("loss", True),
        ("train/loss", True),
        ("val/loss", False),
        ("eval_loss", False),
        ("loss_epoch", False),
        ("acc", False),
        ("interval", True),
    ],
)
def test_names_tell_what_is_a_step_metric(name: str, is_step: bool) -> None:
    rows = [("r", name, 0, step, None, 1.0, "finite", 0.0) for step in range(10)]
    assert is_step_curve(name, rows, "acc") is is_step


def test_one_row_an_epoch_is_no_step_metric() -> None:
    rows = [("r", "loss", 0, step, float(step), 1.0, "finite", 0.0) for step in range(1, 10)]
    assert not is_step_curve("loss", rows, None)


def test_a_compaction_that_is_killed_leaves_each_run_as_it_was_or_short(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(path) as history:
        for _ in range(30):
            trained(history, 200)
    code = (
        "import os, sys, threading, time; from store import History, compact; from store.upkeep import compaction\n"
        "compaction._RUNS_PER_TRANSACTION = 3\n"
        "def report(share, text):\n"
        "    if share > 0.4: threading.Timer(0.003, lambda: os.kill(os.getpid(), 9)).start()\n"
        "compact(History(sys.argv[1]), keep_points=20, is_dry=False, progress=report)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], timeout=120)
    with History(path) as history, history._reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        noted = {row[0] for row in connection.execute("SELECT run_id FROM compactions")}
    with History(path) as history:
        assert noted
        for run in history.runs():
            n_rows = len(history.metrics(run.id, "loss"))
            assert n_rows <= 20 if run.id in noted else n_rows == 200


def test_others_write_meanwhile(history: History) -> None:
    for _ in range(10):
        trained(history, 200)
    stop = threading.Event()
    run = history.start_run(task="t")

    def write() -> None:
        step = 0
        while not stop.wait(0.001):
            run.log(loss=float(step), step=step)
            step += 1

    writer = threading.Thread(target=write)
    writer.start()
    compact(history, keep_points=20, is_dry=False)
    stop.set()
    writer.join()
    run.finish()
    steps = [record.step for record in history.metrics(run.id, "loss")]
    assert steps == list(range(len(steps)))
    assert os.path.exists(history.path)


def test_vacuum_gives_the_space_back(history: History) -> None:
    for _ in range(20):
        trained(history, 500)
    compact(history, keep_points=10, is_dry=False)
    assert vacuum_history(history) > 100_000
    assert len(history.runs()) == 20
