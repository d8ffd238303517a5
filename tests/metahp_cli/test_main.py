"""What all commands share: one-line errors, options after the name."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from store import History, MetaHPError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [["refit"], ["recommend", "--task", "t"], ["runs"], ["show", "x"], ["model"], ["tasks"], ["tasks", "merge", "a", "b"]]


def directory(tmp_path: Path) -> Path:
    return tmp_path


def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("This is no database, but long enough to be looked at.")
    return path


def foreign_database(tmp_path: Path) -> Path:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.commit()
    connection.close()
    return path


def newer_history(tmp_path: Path) -> Path:
    path = tmp_path / "newer.db"
    History(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.commit()
    connection.close()
    return path


def unreadable_history(tmp_path: Path) -> Path:
    path = tmp_path / "unreadable.db"
    History(path).close()
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything, so no file is unreadable")
    return path


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (directory, "is a directory"),
        (text_file, "is not a history: it is no SQLite database"),
        (foreign_database, "is not a history: it is a SQLite database of another program"),
        (newer_history, "Upgrade with: pip install --upgrade lightning-metahp"),
        (unreadable_history, "cannot be read"),
    ],
)
def test_a_bad_history_is_one_line_with_exit_code_1_and_stays_as_it_is(
    call: Callable[..., Any], tmp_path: Path, words: list[str], make: Callable[[Path], Path], expected: str
) -> None:
    path = make(tmp_path)
    before = path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else None
    answer = call(*words, "--history", path)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("Error: ")
    assert len(answer.err.splitlines()) == 1
    assert expected in answer.err
    assert before is None or path.read_bytes() == before


def test_debug_shows_the_traceback_instead(tmp_path: Path) -> None:
    from metahp_cli.main import main

    with pytest.raises(MetaHPError, match="is a directory"):
        main(["runs", "--history", str(tmp_path), "--debug"])


def test_an_unforeseen_error_is_never_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from metahp_cli import main, runs

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    History(tmp_path / "h.db").close()
    monkeypatch.setattr(runs, "print_runs", broken)
    with pytest.raises(ZeroDivisionError):
        main.main(["runs", "--history", str(tmp_path / "h.db")])


def test_wrong_usage_has_exit_code_2(call: Callable[..., Any]) -> None:
    assert call("runs", "--limit", "many").code == 2
    assert call("nonsense").code == 2


def test_a_reader_that_stops_early_is_no_error(recorded: Path) -> None:
    words = f"{sys.executable} -m metahp_cli runs --limit 0 --format json --history {recorded} | head -n 1"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[\n"
    assert "Traceback" not in done.stderr


def test_the_version_and_the_short_help_are_there(call: Callable[..., Any]) -> None:
    answer = call("--version")
    assert (answer.code, answer.out.split()[0]) == (0, "metahp")
    assert answer.out.strip() == f"metahp {version('lightning-metahp')}"
    for words in ([], ["runs"], ["tasks", "merge"], ["import", "optuna"]):
        assert call(*words, "-h").out == call(*words, "--help").out


def test_help_lists_the_kinds_and_methods_there_are(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from compare_baselines.live import tasks
    from compare_baselines.replay import runner
    from metamodel import kinds

    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, "toy"))
    monkeypatch.setattr(tasks, "LIVE_TASKS", {**tasks.LIVE_TASKS, "toy": "nowhere:Toy"})
    for words in (["refit"], ["recommend"], ["compare-baselines", "live"]):
        assert "toy" in call(*words, "--help").out
    for name in runner.METHODS:
        assert name in call("compare-baselines", "replay", "--help").out
