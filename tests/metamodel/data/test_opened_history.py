"""A history for as long as a question takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from metamodel.data.opened_history import opened_history
from store import History
from store.errors import HistoryClosedError, NotAHistoryError


def test_a_history_that_is_given_open_stays_open(history: History) -> None:
    with opened_history(history) as found:
        assert found is history
    assert history.runs() == []


def test_one_at_a_path_is_closed_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened_history(tmp_path / "history.db") as found:
        raise ZeroDivisionError
    with pytest.raises(HistoryClosedError):
        found.runs()


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_text("no database, " * 100)
    with pytest.raises(NotAHistoryError), opened_history(path):
        pass
