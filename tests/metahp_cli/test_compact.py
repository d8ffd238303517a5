"""``metahp compact``, and what a run used in ``metahp show``."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from metahp_cli.compact import parse_age
from store import History, InvalidArgumentError


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A history with one finished run of 300 steps."""
    path = tmp_path / "long.db"
    with History(path) as history, history.start_run(task="t", objective="acc") as run:
        for step in range(300):
            run.log(loss=1 / (step + 1), step=step)
        run.log(acc=0.5, step=300)
    return path


def count(path: Path) -> int:
    with History(path) as history:
        return len(history.metrics(history.runs()[0].id, "loss"))


def test_it_shows_what_it_would_free_and_does_nothing(call: Callable[..., Any], long: Path) -> None:
    answer = call("compact", "--keep-points", "40", "--history", long)
    assert answer.code == 0
    assert "rows that would go" in answer.out
    assert answer.err == "Nothing was changed; --yes does it.\n"
    assert count(long) == 300


def test_with_yes_it_is_done_and_reported(call: Callable[..., Any], long: Path) -> None:
    answer = call("compact", "--keep-points", "40", "--yes", "--vacuum", "--history", long, "--format", "json")
    done = json.loads(answer.out)
    assert (done["is_done"], done["n_runs"], done["n_curves"]) == (True, 1, 1)
    assert done["rows_freed"] == 300 - count(long)
    assert count(long) <= 40
    assert done["file_shrunk_bytes"] >= 0
    again = json.loads(call("compact", "--keep-points", "40", "--yes", "--history", long, "--format", "json").out)
    assert (again["rows_freed"], again["is_done"]) == (0, False)


def test_young_runs_and_other_tasks_are_left_alone(call: Callable[..., Any], long: Path) -> None:
    assert json.loads(call("compact", "--older-than", "1d", "--yes", "--history", long, "--format", "json").out)["n_runs"] == 0
    assert call("compact", "--task", "other", "--history", long).err.startswith("Error: The history has no task 'other'")


@pytest.mark.parametrize(("text", "age"), [("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), ("1.5 W", timedelta(weeks=1.5))])
def test_ages_are_read(text: str, age: timedelta) -> None:
    assert parse_age(text) == age


def test_an_age_that_is_none_is_one_line(call: Callable[..., Any], long: Path) -> None:
    answer = call("compact", "--older-than", "soon", "--history", long)
    assert (answer.code, answer.out) == (1, "")
    assert "got 'soon'. Pass e.g. 30d." in answer.err
    with pytest.raises(InvalidArgumentError):
        parse_age("-3d")


def test_show_shows_what_a_run_used(call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP_RESOURCES_S", "60")
    path = tmp_path / "used.db"
    with History(path) as history:
        with history.start_run(task="t") as run:
            pass
        run.update(gpu_s=5400.0)
        with history._writing() as connection:
            connection.execute("UPDATE runs SET gpu_s = 5400 WHERE id = ?", (run.id,))
            connection.executemany(
                "INSERT INTO resources VALUES (?, 'energy_counter_j', 'gpu0', ?, ?)", [(run.id, 1.0, 0.0), (run.id, 60.0, 9000.0)]
            )
    shown = json.loads(call("show", run.id, "--history", path, "--format", "json").out)["resources"]
    assert (shown["gpu_hours"], shown["energy_j"]) == (1.5, {"gpu0": 9000.0})
    assert shown["energy_sources"] == {"gpu0": "counter of the device"}
    assert shown["cpu_hours"] is not None
    table = call("show", run.id, "--history", path).out
    for text in ("gpu0 9,000 J (counter of the device)", "90.0 min (1.50 h), wall time on the GPUs used", "memory_bytes"):
        assert text in table
