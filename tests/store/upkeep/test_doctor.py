from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from store import History
from store.recording import spool
from store.sqlite import filesystem
from store.upkeep.doctor import Finding, Level, examine
from tests.store.polls import wait_until_at_rest


def found(path: Path, check: str, **options: bool) -> list[Finding]:
    return [finding for finding in examine(path, **options) if finding.check == check]


def actions(path: Path) -> list[str]:
    return [finding.check for finding in examine(path) if finding.level is Level.ACTION]


def fingerprint(folder: Path) -> dict[str, str]:
    # SQLite's index of a write-ahead log changes with every look at it; what is recorded is in the others.
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.endswith("-shm")]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "history" / "history.db"
    with History(path) as history, history.start_run(task="t", hparams={"lr": 0.1}, objective="acc") as run:
        run.log(acc=0.5)
    wait_until_at_rest(path)
    return path


def test_a_healthy_history_needs_nothing_and_stays_as_it_is(path: Path) -> None:
    before = fingerprint(path.parent)
    findings = examine(path, full=True)
    assert [finding for finding in findings if finding.level is not Level.OK] == []
    assert [finding.advice for finding in findings] == [None] * len(findings)
    assert {"file", "file system", "disk space", "opening", "schema", "integrity", "runs", "lock", "spool", "versions"} <= {
        finding.check for finding in findings
    }
    assert found(path, "integrity", full=True)[0].text == "integrity_check: ok"
    assert found(path, "runs")[0].text == "1 completed"
    assert fingerprint(path.parent) == before


def test_what_is_open_right_now_is_read_without_disturbing_it(path: Path) -> None:
    with History(path) as history:
        run = history.start_run(task="t")
        assert actions(path) == []
        assert found(path, "runs")[0].text == "1 completed, 1 running"
        run.finish()


def test_a_missing_file_and_a_directory_are_findings_and_nothing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert found(path, "file")[0].level is Level.ACTION
    assert found(path, "file")[0].text.endswith("none.db does not exist")
    assert "is a directory" in found(tmp_path, "file")[0].text
    assert list(tmp_path.iterdir()) == []


def test_another_programs_database_a_text_and_a_newer_history_are_findings(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text").write_text("x" * 1000)
    with sqlite3.connect(tmp_path / "other.db") as raw:
        raw.execute("CREATE TABLE notes (id TEXT)")
    raw.close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    assert (
        "is no SQLite database" in found(tmp_path / "text", "opening")[0].text
        or "not a database" in found(tmp_path / "text", "opening")[0].text
    )
    assert "of another program" in found(tmp_path / "other.db", "opening")[0].text
    newer = found(path, "opening")[0]
    assert "has schema version 99" in newer.text
    assert newer.advice == "Upgrade with: pip install --upgrade lightning-metahp"


def test_damage_is_found_with_what_can_be_done(path: Path) -> None:
    with sqlite3.connect(path) as raw:
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'metrics'").fetchone()[0]
        size = raw.execute("PRAGMA page_size").fetchone()[0]
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : (page - 1) * size + 1000] = os.urandom(1000)
    path.write_bytes(content)
    damaged = found(path, "integrity")[0]
    assert damaged.level is Level.ACTION
    assert "history.db .recover | sqlite3 recovered.db" in str(damaged.advice)
    path.write_bytes(os.urandom(8192))
    assert found(path, "opening")[0].level is Level.ACTION


def test_stale_runs_are_named(path: Path) -> None:
    code = "import os, sys; from store import History; r = History(sys.argv[1]).start_run(task='t'); print(r.id, flush=True); os._exit(9)"
    run_id = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False).stdout.strip()
    stale = found(path, "stale runs")[0]
    assert (stale.level, run_id in stale.text) == (Level.NOTE, True)
    assert "start_run(resume=ID)" in str(stale.advice)


def test_a_spool_is_looked_at_and_left_alone(path: Path) -> None:
    spool.append(path, [{"op": "metrics", "run_id": "r", "rows": []}])
    beside = Path(f"{path}.spool")
    (beside / "x.jsonl.1-2.taken.rejected").write_text("what\n")
    before = fingerprint(path.parent)
    waiting, rejected = found(path, "spool")
    assert waiting.text.startswith("1 file(s), 0 KiB, wait in ")
    assert "could not be understood" in rejected.text
    assert fingerprint(path.parent) == before
    (beside / "x.jsonl.1-2.taken.rejected").unlink()
    History(path).close()
    assert found(path, "spool")[0].text == "nothing waits"


def test_spools_in_the_state_folder_are_found_for_this_and_for_other_histories(path: Path, tmp_path: Path) -> None:
    for history_path in (path, tmp_path / "another.db"):
        Path(f"{history_path}.spool").write_text("in the way")
        spool.append(history_path, [{"op": "metrics", "run_id": "r", "rows": []}])
    first, second = found(path, "spool")
    assert str(spool.state_directory()) in first.text
    assert second.text.startswith("runs of 1 other histories wait in ")


def test_who_holds_the_history_locked_is_named(path: Path) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    locked = found(path, "lock")[0]
    assert locked.level is Level.NOTE
    assert locked.text == f"process {os.getpid()} is writing just now" or not sys.platform.startswith("linux")
    holder.execute("ROLLBACK")
    assert found(path, "lock")[0].level is Level.OK
    holder.close()


def test_files_that_others_may_read_need_doing_something(path: Path) -> None:
    path.chmod(0o644)
    (wrong,) = found(path, "permissions")
    assert (wrong.level, wrong.text) == (Level.ACTION, "others may read history.db (644)")
    assert str(wrong.advice).startswith("Unless they should: chmod -R go-rwx ")


def test_a_missing_and_an_outdated_model_are_noted(path: Path) -> None:
    with History(path) as history:
        history.save_model({"id": "m1", "kind": "gp", "file": "m1", "n_runs": 1, "n_tasks": 1})
    assert found(path, "model")[0].text == "the files of the newest meta-model, m1, are missing"
    folder = Path(f"{path}.models")
    folder.mkdir(mode=0o700)
    (folder / "m1").touch(mode=0o600)
    assert found(path, "model")[0].level is Level.OK
    with History(path) as history:
        history.start_run(task="t").finish()
    assert found(path, "model")[0].text == "the newest meta-model saw 1 of 2 finished runs"


def test_a_network_file_system_and_what_goes_with_it_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "mount_of", lambda path, *_: ("/home", "nfs4"))
    assert found(path, "file system")[0].text.startswith("nfs4 at /home, a network file system")
    assert found(path, "journal")[0].level is Level.ACTION
    History(path).close()
    assert found(path, "journal") == []


def test_a_full_disk_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "free_bytes", lambda path: 5 * 2**20)
    (space,) = found(path, "disk space")
    assert (space.level, space.text) == (Level.ACTION, "5.0 MiB free")


def test_a_file_that_hides_a_package_and_switches_are_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metamodel.py").write_text("")
    monkeypatch.setenv("METAHP", "off")
    assert "metamodel.py hides the package 'metamodel'" in found(path, "names")[0].text
    assert found(path, "switches")[0].text == "METAHP=off is set"
