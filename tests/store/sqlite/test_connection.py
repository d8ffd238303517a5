from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from store import History, HistoryClosedError, HistoryPathError, HistoryTooNewError, NotAHistoryError, StorageError
from store.paths import default_history_path
from store.sqlite import connection
from store.sqlite.connection import is_on_network


def write_mounts(folder: Path, lines: str) -> Path:
    table = folder / "mounts"
    table.write_text(lines)
    return table


def test_the_default_history_is_where_the_environment_says(isolated_history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with History() as history:
        assert history.path == isolated_history
    assert isolated_history.exists()
    monkeypatch.delenv("METAHP_HISTORY")
    assert default_history_path().parts[-2:] == ("metahp", "history.db")


def test_file_and_new_directories_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "history.db"
    with History(path) as history, history.start_run(task="t"):
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_models_lie_beside_the_history(history: History) -> None:
    assert history.models_path == Path(f"{history.path}.models")


def test_a_directory_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(HistoryPathError, match=rf"^A history is a file, but {tmp_path} is a directory\. Pass a path of a file in it"):
        History(tmp_path)


def test_a_missing_history_is_not_created_when_told_so(tmp_path: Path) -> None:
    with pytest.raises(HistoryPathError, match=r"does not exist\. Pass the path of an existing history, or train a run first\.$"):
        History(tmp_path / "none.db", create=False)
    assert not (tmp_path / "none.db").exists()


def test_a_path_below_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HistoryPathError, match=r"cannot be read or created: Not a directory\. Check the permissions, or name another"):
        History(tmp_path / "file" / "history.db")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
def test_an_unreadable_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.touch(mode=0o000)
    with pytest.raises(HistoryPathError, match=r"cannot be read or created: Permission denied"):
        History(path)


@pytest.mark.parametrize("path", [":memory:", "", "a\x00b"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(HistoryPathError, match=r"is a file that several processes share, but got .* Pass the path of a file\.$"):
        History(path)


def test_something_that_is_no_path_is_refused() -> None:
    with pytest.raises(HistoryPathError, match=r"is a path, a History or None, but got int\."):
        History(7)  # type: ignore[arg-type]


def test_a_working_directory_that_was_deleted_hinders_only_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(HistoryPathError, match=r"^The history h\.db is relative to a directory that was deleted\. Pass an absolute path"):
        History("h.db")
    with History(tmp_path / "history.db") as history, history.start_run() as run:
        run.log(loss=1.0)
    assert run.is_finished


def test_a_file_of_another_kind_is_no_history_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(NotAHistoryError, match=r"notes\.txt is not a history: it is no SQLite database\. Pass the path of a history"):
        History(path)
    assert path.read_text() == "my notes"


def test_a_database_of_another_program_is_no_history_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE runs (id TEXT)")
    before = path.read_bytes()
    with pytest.raises(NotAHistoryError, match=r"it is a SQLite database of another program"):
        History(path)
    assert path.read_bytes() == before


def test_a_damaged_database_is_no_history(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 4000)
    with pytest.raises(NotAHistoryError, match=r"is not a history: it is no SQLite database"):
        History(path)


def test_a_history_of_a_newer_version_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    History(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryTooNewError, match=r"has schema version 99, but this version reads up to \d+\. Upgrade with: pip install"):
        History(path)


def test_every_error_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    for path in (tmp_path, tmp_path / "text", ":memory:"):
        with pytest.raises((HistoryPathError, NotAHistoryError)) as caught:
            History(path)
        assert "\n" not in str(caught.value)


def test_a_closed_history_says_so_and_closing_twice_is_fine(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    history.close()
    history.close()
    with pytest.raises(HistoryClosedError, match=r"is closed\. Open it again with History\("):
        history.runs()
    with pytest.raises(HistoryClosedError, match="is closed"):
        history.start_run(task="t")


def test_the_journal_is_wal_on_a_local_disk(history: History) -> None:
    with sqlite3.connect(history.path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_network_file_systems_are_told_by_the_mount_table(tmp_path: Path) -> None:
    table = write_mounts(
        tmp_path,
        "/dev/sda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n"
        "/dev/sdb1 /home/local xfs rw 0 0\n//nas/x /mnt/my\\040share cifs rw 0 0\n",
    )
    assert is_on_network(Path("/home/me/history.db"), table)
    assert is_on_network(Path("/mnt/my share/history.db"), table)
    assert not is_on_network(Path("/home/local/history.db"), table)
    assert not is_on_network(Path("/homework/history.db"), table)
    assert not is_on_network(Path("/home/me/history.db"), tmp_path / "absent")


def test_on_a_network_file_system_there_is_no_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "is_on_network", lambda path: True)
    with History(tmp_path / "history.db") as history, sqlite3.connect(history.path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone()[0] == "delete"


def test_a_history_that_stays_locked_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.db"
    with History(path) as history, history.start_run(task="t"):
        pass
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with History(path) as history:
        assert len(history.runs()) == 1  # reading goes on
        with pytest.raises(StorageError, match=r"but SQLite says: database is locked\. Close the program that holds it"):
            history.merge_tasks("t", "t")
    holder.execute("ROLLBACK")
    holder.close()


def test_parallel_first_opens_do_not_race(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    code = (
        "import sys; from store import History; print('ready', flush=True); sys.stdin.readline()\n"
        "with History(sys.argv[1]) as history, history.start_run(task='t', hparams={'lr': 0.1}) as run: run.log(loss=1.0)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert errors == [""] * 4
    with History(path) as history:
        assert len(history.runs(status="completed")) == 4
        assert not Path(f"{path}.spool").exists()


def test_a_history_that_another_process_makes_while_it_is_looked_at_is_one(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.touch(mode=0o600)
    looking = connection.connect(path)
    made: list[str] = []

    def make(statement: str) -> None:
        if "sqlite_master" in statement and not made:
            made.append(statement)
            connection.open_database(path).close()

    looking.set_trace_callback(make)
    assert connection.is_current(looking, path)
    assert made
    looking.close()


def test_a_second_open_imports_the_standard_library_only(tmp_path: Path) -> None:
    History(tmp_path / "history.db").close()
    code = (
        "import sys; from store import History; h = History(sys.argv[1]); run = h.start_run(task='t'); run.finish(); h.tasks(); "
        "heavy = {'sqlite_utils', 'torch', 'numpy', 'pandas', 'optuna'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "history.db")], check=True)
