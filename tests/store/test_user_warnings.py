"""Warnings show the line of the user's program, whatever called us on its behalf."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from store import History
from store.errors import MetaHPWarning
from store.user_warnings import is_repeated, warn_user


def run_script(folder: Path, text: str) -> str:
    """Run a script of a user's and return what it wrote to stderr."""
    path = folder / "train.py"
    path.write_text(textwrap.dedent(text))
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stderr


def test_a_warning_names_the_line_of_a_script(tmp_path: Path) -> None:
    stderr = run_script(
        tmp_path,
        """
        from store import History
        with History("h.db") as history:
            run = history.start_run(task="t", objective="val_acc")
            run.log(loss=1.0)
            run.finish()
        """.replace("h.db", str(tmp_path / "h.db")),
    )
    assert f"{tmp_path / 'train.py'}:6: ObjectiveWarning" in stderr


def test_a_loop_over_folds_shows_a_warning_once(tmp_path: Path) -> None:
    stderr = run_script(
        tmp_path,
        """
        from store import History
        with History("h.db") as history:
            for fold in range(3):
                with history.start_run(task="t", objective="val_acc") as run:
                    run.log(loss=1.0)
        """.replace("h.db", str(tmp_path / "h.db")),
    )
    assert stderr.count("ObjectiveWarning") == 1


def test_a_warning_never_stops_a_program_that_turns_warnings_into_errors(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_user("something is odd", MetaHPWarning)
    assert "something is odd" in caplog.text


def test_a_message_of_one_place_is_repeated_whatever_its_numbers_and_new_in_another() -> None:
    found = [is_repeated(f"not enough history ({n} runs)", "a.db") for n in range(3)]
    assert found == [False, True, True]
    assert not is_repeated("not enough history (3 runs)", "a.db")
    assert not is_repeated("another sentence", "a.db")


def test_the_same_place_with_another_history_is_new() -> None:
    assert [is_repeated("x", name) for name in ("a.db", "b.db")] == [False, False]


def test_an_unknown_word_of_a_switch_is_warned_about_at_the_users_line(monkeypatch: pytest.MonkeyPatch, history: History) -> None:
    monkeypatch.setenv("METAHP", "perhaps_here")
    from store.switches import is_off

    with pytest.warns(MetaHPWarning, match="METAHP") as seen:
        is_off()
    assert seen[0].filename == __file__
