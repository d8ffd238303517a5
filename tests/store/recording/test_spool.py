from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import History
from store.recording import spool
from store.sqlite.connection import open_database
from store.sqlite.operations import metrics_operation, run_operation


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_database(tmp_path / "history.db")
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def run_row(run_id: str, revision: int = 1, status: str = "running", **columns: object) -> dict[str, object]:
    row = {"id": run_id, "task_id": "t1", "status": status, "started_utc": "2025", "revision": revision, "hparams_revision": revision}
    task = {"id": "t1", "name": "t", "is_named": 1, "identity_json": "{}"}
    hparams = [[run_id, "learning_rate", "lr", str(revision / 10), "user", None, None]]
    return run_operation({**row, **columns}, task, hparams)


def metric(run_id: str, step: int, value: float, elapsed_s: float = 0.0) -> dict[str, object]:
    return metrics_operation(run_id, [[run_id, "loss", 0, step, None, value, "finite", elapsed_s]])


def stored(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute("SELECT run_id, step, value FROM metrics ORDER BY run_id, step")]


def test_what_waits_is_taken_in_once_and_its_files_are_gone(connection: sqlite3.Connection, path: Path) -> None:
    spool.append(path, [run_row("r1"), metric("r1", 0, 0.5), run_row("r2"), metric("r2", 0, 1.5)])
    spool.append(path, [metric("r1", 1, 0.25)])
    directory = spool.spool_directories(path)[0]
    assert sorted(file.name for file in directory.iterdir()) == [f"r1-{os.getpid()}.jsonl", f"r2-{os.getpid()}.jsonl"]
    assert spool.has_waiting(path)
    assert spool.ingest(connection, path) == 5
    assert stored(connection) == [("r1", 0, 0.5), ("r1", 1, 0.25), ("r2", 0, 1.5)]
    assert not directory.exists()
    assert not spool.has_waiting(path)
    assert spool.ingest(connection, path) == 0


def test_taking_in_twice_changes_nothing(connection: sqlite3.Connection, path: Path, tmp_path: Path) -> None:
    spool.append(path, [run_row("r1", 2, "completed"), metric("r1", 0, 0.5)])
    shutil.copytree(spool.spool_directories(path)[0], tmp_path / "copy")
    spool.ingest(connection, path)
    before = list(connection.iterdump())
    shutil.copytree(tmp_path / "copy", spool.spool_directories(path)[0])
    spool.ingest(connection, path)
    assert list(connection.iterdump()) == before


def test_what_is_late_does_not_replace_what_is_newer(connection: sqlite3.Connection, path: Path) -> None:
    spool.append(path, [run_row("r1", 3, "completed"), metric("r1", 0, 0.5, elapsed_s=9.0)])
    spool.ingest(connection, path)
    spool.append(path, [run_row("r1", 2, "running"), metric("r1", 0, 7.0, elapsed_s=1.0), metric("r1", 1, 8.0, elapsed_s=2.0)])
    spool.ingest(connection, path)
    assert connection.execute("SELECT status, revision FROM runs").fetchone()[:] == ("completed", 3)
    assert connection.execute("SELECT value_json FROM hparams").fetchone()[0] == "0.3"
    assert stored(connection) == [("r1", 0, 0.5), ("r1", 1, 8.0)]


def test_the_line_a_killed_process_did_not_finish_costs_only_itself(connection: sqlite3.Connection, path: Path) -> None:
    spool.append(path, [run_row("r1"), metric("r1", 0, 0.5)])
    file = next(spool.spool_directories(path)[0].iterdir())
    with file.open("a") as end:
        end.write(json.dumps(metric("r1", 1, 0.25))[:-9])
    assert spool.ingest(connection, path) == 2
    assert stored(connection) == [("r1", 0, 0.5)]
    kept = list(spool.spool_directories(path)[0].iterdir())
    assert [found.suffix for found in kept] == [".rejected"]
    assert spool.ingest(connection, path) == 0


@pytest.mark.parametrize("line", ['{"op":"hologram","run_id":"r9"}', '{"op":"metrics","run_id":"r9","rows":[[1]]}', "[]", "\x00"])
def test_what_cannot_be_understood_is_kept_aside_and_hinders_nothing(connection: sqlite3.Connection, path: Path, line: str) -> None:
    spool.append(path, [run_row("r1"), metric("r1", 0, 0.5)])
    directory = spool.spool_directories(path)[0]
    (directory / "a-1.jsonl").write_text(line + "\n")
    spool.ingest(connection, path)
    assert stored(connection) == [("r1", 0, 0.5)]
    assert [file.read_text() for file in directory.iterdir()] == [line + "\n"]


def test_files_taken_by_a_process_that_died_are_taken_in_by_the_next(connection: sqlite3.Connection, path: Path) -> None:
    spool.append(path, [run_row("r1"), metric("r1", 0, 0.5)])
    file = next(spool.spool_directories(path)[0].iterdir())
    file.rename(file.with_name(file.name + ".1-abc.taken"))
    spool.append(path, [metric("r1", 1, 0.25)])
    spool.ingest(connection, path)
    assert stored(connection) == [("r1", 0, 0.5), ("r1", 1, 0.25)]
    assert not spool.has_waiting(path)


def test_while_the_history_is_locked_everything_stays_in_the_spool(connection: sqlite3.Connection, path: Path) -> None:
    spool.append(path, [run_row("r1"), metric("r1", 0, 0.5)])
    connection.execute("PRAGMA busy_timeout = 20")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        spool.ingest(connection, path)
    holder.execute("ROLLBACK")
    holder.close()
    assert spool.ingest(connection, path) == 2
    assert len(stored(connection)) == 1


def test_where_no_spool_can_lie_beside_the_history_the_users_state_folder_serves_then_the_temporary_one(
    connection: sqlite3.Connection, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    beside, state, temporary = spool.spool_directories(path)
    beside.write_text("a file where the directory should be")
    assert spool.append(path, [run_row("r1"), metric("r1", 0, 0.5)]) == state
    assert state.stat().st_mode & 0o777 == state.parent.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("neither can this one")
    assert spool.append(path, [metric("r1", 1, 0.25)]) == temporary
    (tmp_path / "state").unlink()
    assert [file.parent for file in spool.waiting_files(path)] == [temporary]
    assert spool.ingest(connection, path) == 1
    assert not spool.has_waiting(path) or beside.is_file()


def test_several_processes_appending_and_taking_in_lose_nothing(path: Path) -> None:
    writer = (
        "import sys; from pathlib import Path; from store.recording import spool\n"
        "from store.sqlite.operations import metrics_operation as m\n"
        "for i in range(150): spool.append(Path(sys.argv[1]), [m('r', [['r', sys.argv[2], 0, i, None, float(i), 'finite', 0.0]])])\n"
    )
    History(path).close()
    writers = [subprocess.Popen([sys.executable, "-c", writer, str(path), name]) for name in "ab"]
    connections = [open_database(path), open_database(path)]
    while any(process.poll() is None for process in writers):
        for connection in connections:
            spool.ingest(connection, path)
    spool.ingest(connections[0], path)
    assert [process.returncode for process in writers] == [0, 0]
    assert connections[0].execute("SELECT name, count(*) FROM metrics GROUP BY name").fetchall() != []
    counts = dict(connections[0].execute("SELECT name, count(*) FROM metrics GROUP BY name").fetchall())
    assert counts == {"a": 150, "b": 150}
    for connection in connections:
        connection.close()
