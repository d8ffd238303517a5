"""``metahp tasks``, ``merge`` and ``split``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metamodel.data.task import TaskDescription
from store import History


def names(call: Callable[..., Any], path: Path) -> dict[str, int]:
    return {task["name"]: task["n_runs"] for task in json.loads(call("tasks", "--history", path, "--format", "json").out)}


def test_tasks_are_listed_with_their_runs_and_best_value(call: Callable[..., Any], recorded: Path) -> None:
    assert names(call, recorded) == {"wine": 10, "iris": 10, "digits": 10}
    assert "val_acc (max)" in call("tasks", "--history", recorded).out


def test_why_shows_what_two_runs_must_share(call: Callable[..., Any], tmp_path: Path) -> None:
    described = TaskDescription(dataset_class="Digits", n_train=1500, model_class="Net", objective="val_acc", direction="max")
    with History(tmp_path / "h.db") as history, history.start_run(task=described, objective="val_acc") as run:
        run.log(val_acc=0.5)
    out = call("tasks", "--why", "--history", tmp_path / "h.db").out
    assert 'dataset_class="Digits", n_train=1500, model_class="Net", objective="val_acc", direction="max"' in out


def test_merged_tasks_become_one(call: Callable[..., Any], recorded: Path) -> None:
    answer = call("tasks", "merge", "wine", "iris", "--history", recorded)
    assert answer.code == 0
    assert "wine" in answer.out
    assert names(call, recorded) == {"wine": 20, "digits": 10}
    assert "merged into it" in call("tasks", "--why", "--history", recorded).out


def test_split_runs_move_into_a_task_that_is_new(call: Callable[..., Any], recorded: Path) -> None:
    with History(recorded) as history:
        moved = [run.id for run in history.runs("wine")][:3]
    assert call("tasks", "split", *moved, "--name", "wine-cleaned", "--history", recorded).code == 0
    assert names(call, recorded) == {"wine": 7, "iris": 10, "digits": 10, "wine-cleaned": 3}


def test_a_history_given_before_the_subcommand_counts(call: Callable[..., Any], recorded: Path, isolated_history: Path) -> None:
    assert call("tasks", "--history", recorded, "merge", "wine", "iris").code == 0
    assert names(call, recorded) == {"wine": 20, "digits": 10}
    assert not isolated_history.exists()


@pytest.mark.parametrize("words", [["merge", "wine", "nope"], ["split", "nope", "--name", "x"]])
def test_a_mistake_changes_nothing(call: Callable[..., Any], recorded: Path, words: list[str]) -> None:
    answer = call("tasks", *words, "--history", recorded)
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert names(call, recorded) == {"wine": 10, "iris": 10, "digits": 10}
