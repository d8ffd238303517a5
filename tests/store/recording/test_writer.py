from __future__ import annotations

import gc
import math
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from store import History, RunStatus, StorageWarning
from store.recording import writer
from tests.store.polls import wait_for


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FLUSH_INTERVAL_S", 0.05)
    monkeypatch.setattr(writer, "WRITE_TIMEOUT_S", 0.1)


def count_metrics(path: Path) -> int:
    with sqlite3.connect(path) as raw:
        found = raw.execute("SELECT count(*) FROM metrics").fetchone()[0]
    raw.close()
    return int(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An existing history, so that the programs below need not make its tables."""
    History(tmp_path / "history.db").close()
    return tmp_path / "history.db"


def script(code: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=check, timeout=60)


def test_values_reach_the_file_without_anybody_asking(history: History) -> None:
    run = history.start_run(task="t")
    run.log(loss=1.0)
    assert wait_for(lambda: count_metrics(history.path) == 1)
    run.finish()


def test_the_thread_ends_with_the_last_run_and_starts_again(history: History) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "metahp-writer"]

    for _ in range(2):
        first, second = history.start_run(task="t"), history.start_run(task="t")
        assert wait_for(lambda: len(threads()) == 1)  # that of the test before may just be ending
        assert threads()[0].daemon
        first.finish()
        second.finish()
        assert wait_for(lambda: not threads())


def test_a_heartbeat_is_written_while_nothing_is_logged(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "HEARTBEAT_INTERVAL_S", 0.1)
    run = history.start_run(task="t")
    first = history.run(run.id).heartbeat_utc or ""
    assert wait_for(lambda: (history.run(run.id).heartbeat_utc or "") > first)
    run.finish()


def test_what_was_flushed_survives_a_killed_process(path: Path) -> None:
    code = (
        "import sys, time; from store import History; history = History(sys.argv[1])\n"
        "run = history.start_run(task='t', hparams={'lr': 0.1}, objective='acc')\n"
        "for i in range(100): run.log(acc=i / 100)\n"
        "print(run.id, flush=True)\n"
        "while True: run.log(other=1.0); time.sleep(0.001)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    assert wait_for(lambda: count_metrics(path) >= 100)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with History(path) as history:
        record = history.run(run_id)
        assert record.status is RunStatus.STALE
        assert record.hparams == {"learning_rate": 0.1}
        assert record.objective_best == 0.99
        assert len(history.metrics(run_id, "acc")) == 100


def test_a_program_that_ends_without_finish_leaves_an_interrupted_run(path: Path) -> None:
    code = (
        "import sys; from store import History; h = History(sys.argv[1]); a = h.start_run(task='t'); a.log(loss=1.0)\n"
        "b = h.start_run(task='t'); b.finish(); sys.exit(3)\n"
    )
    assert script(code, path, check=False).returncode == 3
    with History(path) as history:
        first, second = history.runs()
        assert (first.status, first.error) == (RunStatus.INTERRUPTED, "The program ended before finish().")
        assert second.status is RunStatus.COMPLETED
        assert len(history.metrics(first.id)) == 1


def test_a_recorder_that_nobody_holds_any_more_is_interrupted(history: History) -> None:
    run = history.start_run(task="t")
    run_id = run.id
    run.log(loss=1.0)
    del run
    gc.collect()
    assert wait_for(lambda: history.run(run_id).status is RunStatus.INTERRUPTED)
    assert len(history.metrics(run_id)) == 1


def test_a_locked_history_costs_one_warning_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(path) as history:
        run = history.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        run.log(acc=0.5)
        assert wait_for(lambda: Path(f"{path}.spool").exists())
        assert wait_for(lambda: writer.writer_for(path)._problem)  # it lasted longer than a busy neighbour may take
        with pytest.warns(StorageWarning, match=r"history\.db cannot be written: database is locked\. Training goes on") as seen:
            run.log(acc=0.6)
        assert seen[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run.log(acc=0.7)
            other = history.start_run(task="t", hparams={"lr": 0.2})
            other.log(loss=1.0)
            other.finish()
            run.finish()
        holder.execute("ROLLBACK")
        holder.close()
        assert history.run(run.id).status is RunStatus.RUNNING  # what is known of it so far
    with History(path) as history:
        assert [record.value for record in history.metrics(run.id)] == [0.5, 0.6, 0.7]
        assert [record.status for record in history.runs()] == [RunStatus.COMPLETED] * 2
        assert [record.hparams["learning_rate"] for record in history.runs()] == [0.1, 0.2]
        assert not Path(f"{path}.spool").exists()


@pytest.mark.filterwarnings("ignore::store.errors.StorageWarning")
def test_a_history_that_becomes_writable_again_is_caught_up_with_during_the_run(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    run = history.start_run(task="t")
    holder = sqlite3.connect(history.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    run.log(loss=1.0)
    assert wait_for(lambda: Path(f"{history.path}.spool").exists())
    holder.execute("ROLLBACK")
    holder.close()
    monkeypatch.setattr(writer, "_MAX_RETRY_S", 0.1)
    run.log(loss=2.0)
    assert wait_for(lambda: count_metrics(history.path) >= 1)
    run.finish()
    assert [record.value for record in history.metrics(run.id)] == [1.0, 2.0]


@pytest.mark.filterwarnings("ignore::store.errors.StorageWarning")
def test_a_history_that_is_deleted_during_the_run_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "history.db"
    history = History(path)
    run = history.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
    run.log(acc=0.4)
    history.runs()
    shutil.rmtree(path.parent)
    run.log(acc=0.5)
    assert wait_for(lambda: Path(f"{path}.spool").exists())
    run.log(acc=0.6)
    run.finish()
    history.close()
    with History(path) as again:
        record = again.run(run.id)
        assert (record.status, record.objective_best, record.hparams) == (RunStatus.COMPLETED, 0.6, {"learning_rate": 0.1})
        assert {0.5, 0.6} <= {found.value for found in again.metrics(run.id)}


@pytest.mark.filterwarnings("ignore::store.errors.StorageWarning")
def test_a_history_that_turns_into_a_directory_ends_no_training(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    history = History(path)
    run = history.start_run(task="t", objective="acc")
    history.close()
    for file in tmp_path.glob("history.db*"):
        file.unlink()
    path.mkdir()
    run.log(acc=0.5)
    run.finish()
    path.rmdir()
    with History(path) as again:
        assert again.run(run.id).objective_best == 0.5


def test_a_full_disk_ends_no_training(path: Path) -> None:
    code = (
        "import resource, signal, sys, warnings; from store import History; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "h = History(sys.argv[1]); run = h.start_run(task='t', objective='acc')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))\n"
        "warnings.simplefilter('always')\n"
        "for i in range(2000): run.log({f'metric_with_a_long_name_{i}': 1.0, 'acc': 0.5})\n"
        "run.finish()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print('trained')\n"
    )
    done = script(code, path)
    assert done.stdout == "trained\n"
    assert done.stderr.count("StorageWarning") == 1
    with History(path) as history:
        record = history.runs()[0]
        assert record.objective_best == 0.5
        assert len(history.metrics(record.id)) == 4000


@pytest.mark.filterwarnings("ignore::store.errors.StorageWarning")
def test_a_full_queue_goes_to_the_spool_and_drops_nothing(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 50)
    monkeypatch.setattr(writer, "FLUSH_INTERVAL_S", 60.0)
    spilled: list[Path] = []
    append = writer.spool.append
    monkeypatch.setattr(writer.spool, "append", lambda *arguments: spilled.append(append(*arguments)) or spilled[-1])
    run = history.start_run(task="t", objective="acc")
    for step in range(230):
        run.log(acc=step / 1000, step=step)
    assert set(spilled) == {Path(f"{history.path}.spool")}
    run.finish()
    with History(history.path) as again:
        assert len(again.metrics(run.id)) == 230
        assert again.run(run.id).objective_best == 0.229


def test_warnings_turned_into_errors_end_no_training(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(path) as history, warnings.catch_warnings():
        warnings.simplefilter("error")
        run = history.start_run(task="t")
        path.unlink()
        run.log(loss=1.0)
        run.finish()
        assert run.is_finished


def test_each_history_has_its_own_writer(tmp_path: Path) -> None:
    with History(tmp_path / "a.db") as first, History(tmp_path / "b.db") as second:
        with first.start_run(task="a") as one, second.start_run(task="b") as two:
            one.log(loss=1.0)
            two.log(loss=2.0)
        assert [len(history.runs()) for history in (first, second)] == [1, 1]
        assert second.metrics(two.id)[0].value == 2.0


def test_on_a_network_file_system_runs_go_through_their_own_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "is_on_network", lambda path: True)
    path = tmp_path / "history.db"
    with History(path) as history:
        run = history.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
        assert history.run(run.id).status is RunStatus.RUNNING
        run.log(loss=1.0)
        assert wait_for(lambda: any(Path(f"{path}.spool").glob(f"{run.id}-{os.getpid()}.jsonl")))
        run.log(acc=0.5)
        run.finish()
        assert history.run(run.id).objective_best == 0.5
        assert history.metric_names(run.id) == ["acc", "loss"]
    assert not Path(f"{path}.spool").exists()


def test_a_device_that_fails_costs_its_values_only(history: History) -> None:
    class Broken(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") in {"stack", "item", "cpu"}:
                raise RuntimeError("CUDA error: device-side assert triggered")
            return super().__torch_function__(function, types, args, kwargs or {})

    with history.start_run(task="t") as run:
        run.log(loss=torch.tensor(1.0).as_subclass(Broken), fine=1.0)
    assert history.metric_names(run.id) == ["fine"]
    assert history.run(run.id).status is RunStatus.COMPLETED


def test_a_batch_of_tensors_is_read_in_one_transfer(history: History) -> None:
    with history.start_run(task="t") as run:
        for step in range(50):
            run.log(loss=torch.tensor(step / 10), half=torch.tensor(0.5, dtype=torch.bfloat16), nan=torch.tensor(math.nan))
    assert [record.value for record in history.metrics(run.id, "loss")] == pytest.approx([step / 10 for step in range(50)])
    assert {record.value for record in history.metrics(run.id, "half")} == {0.5}
    assert all(math.isnan(record.value) for record in history.metrics(run.id, "nan"))


def test_a_signal_handler_may_end_the_run_it_interrupts(path: Path) -> None:
    code = (
        "import os, signal, sys; from store import History; run = History(sys.argv[1]).start_run(task='t')\n"
        "def end(*_): run.finish('interrupted'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); run.log(loss=1.0); os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    script(code, path)
    with History(path) as history:
        assert history.runs()[0].status is RunStatus.INTERRUPTED


def test_the_limit_of_open_files_is_not_used_up_by_runs(history: History) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        with history.start_run(task="t") as run:
            run.log(loss=1.0)
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after - before < 10
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
