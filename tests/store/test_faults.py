"""The scenarios of ``make torture``, each tried a few times: processes killed, many at once, file systems that fail."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store import History, HistoryPathError, InvalidArgumentError, RunStatus, StorageError, UnknownRunError
from store.recording import spool
from store.sqlite import filesystem
from store.sqlite.connection import transaction
from store.sqlite.lock import held_lock, lock_path
from torture import crowd, disks, kills, network
from torture.trials import Trials


def held(outcome: Trials) -> bool:
    assert not outcome.failures, outcome.failures
    return outcome.result == "held"


def test_processes_killed_while_they_write_lose_nothing_that_was_flushed_and_go_on(tmp_path: Path) -> None:
    assert held(kills.kill_while_writing(tmp_path, 8, parallel=2, longest_s=2.0, is_timed=False))


def test_a_process_killed_while_it_creates_the_tables_is_no_obstacle(tmp_path: Path) -> None:
    assert held(kills.kill_while_creating(tmp_path, 4))


def test_what_a_killed_process_was_taking_in_is_taken_in_once_by_two_that_open_together(tmp_path: Path) -> None:
    assert held(kills.kill_while_ingesting(tmp_path, 3, runs=6, values=1_000))


def test_many_processes_start_together_write_and_read_without_losing_or_waiting_in_vain(tmp_path: Path) -> None:
    assert held(crowd.crowd(tmp_path, processes=16, runs=64, steps=5, readers=2, with_refit=False))


def test_on_a_network_file_system_without_any_locks_nothing_is_lost(tmp_path: Path) -> None:
    assert held(network.without_locks(tmp_path, processes=3, runs=3))


def test_a_write_ahead_log_of_a_local_opening_is_taken_in_on_a_network_file_system(tmp_path: Path) -> None:
    assert held(network.journal_of_a_local_opening(tmp_path))


@pytest.mark.skipif(not disks.can_mount(), reason="no file system can be mounted here")
def test_a_read_only_history_can_be_read_merged_and_copied_but_not_changed(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path / "disk") as disk:
        with History(disk / "history.db") as history, history.start_run(task="t", hparams={"lr": 0.1}) as run:
            run.log(loss=1.0)
        disks.remount(disk, "ro")
        with History(disk / "history.db") as history, History(tmp_path / "own.db") as own:
            assert history.run(run.id).hparams == {"learning_rate": 0.1}
            assert own.merge(history)["runs"] == 1
            with pytest.raises(StorageError, match="readonly database"):
                history.split_task([run.id], "other")
        with pytest.raises(HistoryPathError, match="cannot be read or created: Read-only file system"):
            History(disk / "new.db")


@pytest.mark.skipif(not disks.can_mount(), reason="no file system can be mounted here")
def test_a_journal_left_on_a_read_only_file_system_is_read_too(tmp_path: Path) -> None:
    code = (
        "import os, sys; from store import History; h = History(sys.argv[1])\n"
        "with h.start_run(task='t') as run: run.log(loss=1.0)\n"
        "os._exit(9)"
    )
    with disks.small_disk(tmp_path / "disk") as disk:
        subprocess.run([sys.executable, "-c", code, str(disk / "history.db")], check=False)
        assert (disk / "history.db-wal").stat().st_size > 0
        disks.remount(disk, "ro")
        with History(disk / "history.db") as history:
            assert [run.status for run in history.runs()] == [RunStatus.COMPLETED]


def test_a_history_that_cannot_be_opened_is_recorded_into_all_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"not a database" * 100)
    history = History(path, for_recording=True)
    with pytest.warns(Warning, match=r"cannot be written: file is not a database\. Training goes on; the values wait in .*spool"):
        run = history.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
    run.log(acc=0.5)
    run.finish()
    history.close()
    path.unlink()
    with History(path) as again:
        assert again.run(run.id).objective_best == 0.5
    with pytest.raises(HistoryPathError, match="is a directory"):
        History(tmp_path, for_recording=True)


def test_a_run_that_stopped_goes_on_under_its_id(history: History) -> None:
    first = history.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
    first.log(acc=0.9, step=4)
    first.finish(error=ZeroDivisionError("no"))
    second = history.start_run(resume=first.id[-8:], hparams={"wd": 0.5})
    assert (second.id, second.attempt, second.objective, history.run(first.id).status) == (first.id, 1, "acc", "running")
    with pytest.raises(InvalidArgumentError, match=r"must have stopped, but .* is still running"):
        history.start_run(resume=first.id)
    second.log(acc=0.7)
    second.finish()
    record = history.run(first.id)
    assert (record.status, record.error, record.objective_best, record.objective_best_step) == ("completed", None, 0.9, 4)
    assert record.hparams == {"learning_rate": 0.1, "weight_decay": 0.5}
    assert [(item.attempt, item.step, item.value) for item in history.metrics(first.id)] == [(0, 4, 0.9), (1, 5, 0.7)]
    assert len(history.runs()) == 1
    with pytest.raises(UnknownRunError, match="has no run 'zorp'"):
        history.start_run(resume="zorp")


def test_what_an_earlier_attempt_left_in_a_spool_does_not_undo_the_next_one(history: History) -> None:
    run = history.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
    late: list[list[dict[str, object]]] = []
    append = spool.append
    row = {"id": run.id, "task_id": run.task_id, "status": "running", "started_utc": "2025", "revision": 999, "hparams_revision": 999}
    late.append([{"op": "run", "run_id": run.id, "row": row, "task": {"id": run.task_id, "name": "t"}, "hparams": []}])
    run.finish("interrupted")
    with history.start_run(resume=run.id) as again:
        again.log(acc=0.5)
    append(history.path, late[0])
    with History(history.path) as opened:
        assert opened.run(run.id).status is RunStatus.COMPLETED
        assert opened.run(run.id).hparams == {"learning_rate": 0.1}


def test_a_lock_file_excludes_and_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    lock = lock_path(tmp_path / "history.db")
    code = (
        "import os, sys; from pathlib import Path; from store.sqlite.lock import held_lock\n"
        "with held_lock(Path(sys.argv[1]), 1): print('held', flush=True); sys.stdin.readline(); os._exit(9)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], **pipes)
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(sqlite3.OperationalError, match=rf"locked by process {process.pid} of this machine; delete .*history\.db\.lock"),
        held_lock(lock, 0.05),
    ):
        pass
    process.communicate("go\n")
    with held_lock(lock, 1), held_lock(lock, 1):
        assert lock.exists()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert not lock.exists()
    lock.write_text("{}")
    os.utime(lock, (time.time() - 10_000,) * 2)
    with held_lock(lock, 1):
        pass


def test_every_use_on_a_network_file_system_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "mount_of", lambda path, *_: ("/", "nfs4"))
    with History(tmp_path / "history.db") as history:
        with history._reading() as connection:
            assert lock_path(history.path).exists()
            assert connection.execute("PRAGMA mmap_size").fetchone()[0] == 0
            assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        with history._writing() as connection, transaction(connection):
            assert lock_path(history.path).exists()
        assert not lock_path(history.path).exists()


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
srv:/home /home nfs4 rw 0 0
//nas/x /mnt/my\\040share cifs rw 0 0
lustre@tcp:/fs /scratch lustre rw 0 0
fs-1.fsx:/x /fsx lustre rw 0 0
gpfs0 /gpfs gpfs rw 0 0
weka /weka wekafs rw 0 0
beegfs_nodev /beegfs beegfs rw 0 0
p9 /p9 9p rw 0 0
me@host:/ /ssh fuse.sshfs rw 0 0
c /ceph ceph rw 0 0
c2 /ceph2 fuse.ceph-fuse rw 0 0
s3 /s3 fuse.mountpoint-s3 rw 0 0
/dev/sdc /ntfs fuseblk rw 0 0
enc /enc fuse.encfs rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
auto /late autofs rw 0 0
srv:/late /late nfs rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *[
            (f"/{name}/x.db", True)
            for name in ("home/me", "scratch", "fsx", "gpfs", "weka", "beegfs", "p9", "ssh", "ceph", "ceph2", "s3", "late")
        ],
        ("/mnt/my share/x.db", True),
        *[(f"/{name}/x.db", False) for name in ("home/local", "homework", "ntfs", "enc", "dev/shm", "var")],
    ],
)
def test_network_file_systems_of_every_kind_are_told_by_the_mount_table(path: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert filesystem.is_on_network(Path(path), tmp_path / "mounts") is expected


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_everything_written_is_the_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    code = (
        "import os, sys; os.umask(int(sys.argv[2])); from pathlib import Path; from store import History\n"
        "from store.recording import spool\n"
        "from store.upkeep.export import export_history; path = Path(sys.argv[1]) / 'deep' / 'history.db'\n"
        "history = History(path); run = history.start_run(task='t', hparams={'lr': 0.1}); run.log(loss=1.0)\n"
        "spool.append(path, [{'op': 'metrics', 'run_id': 'r', 'rows': []}])\n"
        "export_history(history, path.parent / 'out' / 'runs.jsonl'); history.runs(); os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(umask)], check=True)
    found = {file: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.rglob("*")}
    names = {file.name for file in found}
    assert {"history.db", "history.db-wal", "history.db-shm", "history.db.spool", "runs.jsonl"} <= names
    assert {mode for file, mode in found.items() if file.is_file()} == {0o600}
    assert {mode for file, mode in found.items() if file.is_dir()} == {0o700}


def test_an_open_spool_of_an_older_version_is_closed_to_others(tmp_path: Path) -> None:
    folder = Path(f"{tmp_path / 'history.db'}.spool")
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    spool.append(tmp_path / "history.db", [{"op": "metrics", "run_id": "r", "rows": []}])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_half_a_line_of_a_killed_process_of_the_same_number_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    operation: Callable[[int], dict[str, object]] = lambda step: {  # noqa: E731 - a row a line reads best
        "op": "metrics",
        "run_id": "r",
        "rows": [["r", "loss", 0, step, None, 1.0, "finite", 0.0]],
    }
    spool.append(path, [operation(1)])
    file = next(Path(f"{path}.spool").iterdir())
    with file.open("ab") as end:
        end.write(b'{"op": "metr')
    spool.append(path, [operation(2)])
    with History(path), sqlite3.connect(path) as raw:
        assert [row[0] for row in raw.execute("SELECT step FROM metrics")] == [1, 2]
    raw.close()


def test_a_spool_in_the_state_folder_is_found_by_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    Path(f"{path}.spool").write_text("a file where the folder should be")
    with History(path) as history:
        place = spool.append(path, [{"op": "metrics", "run_id": "r", "rows": [["r", "loss", 0, 1, None, 1.0, "finite", 0.0]]}])
        assert place.parent == spool.state_directory()
    with History(path) as history, history._reading() as connection:
        assert connection.execute("SELECT count(*) FROM metrics").fetchone()[0] == 1
    assert spool.waiting_files(path) == []
