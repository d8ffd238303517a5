"""``metahp tasks``, ``merge`` and ``split``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
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
    lines = call("tasks", "--why", "--history", tmp_path / "h.db").out.splitlines()
    assert lines[0] == "Digits-Net-val_acc"
    assert [" ".join(line.split()) for line in lines[2:]] == ["data set Digits", "model Net", "objective val_acc (max)"]


def test_why_names_siblings_and_what_compares_only_in_order(call: Callable[..., Any], tmp_path: Path) -> None:
    known = {"dataset_class": "Digits", "model_class": "Net", "objective": "val_loss", "direction": "min", "schema": {"labels": ["a", "b"]}}
    first = TaskDescription(**known, n_train=1398, sketch=("01", "02"), input_shape=(-1, 7), input_dtype="float32")
    second = replace(first, n_train=1400, sketch=("02", "03"))
    with History(tmp_path / "h.db") as history:
        for task in (first, replace(first, comparability={"label_smoothing": 0.2}), second):
            with history.start_run(task=task, objective="val_loss", description=task.to_dict()) as run:
                run.log(val_loss=0.5)
        name = history.task(run.task_id).name
    out = call("tasks", "--why", "--history", tmp_path / "h.db").out
    text = " ".join(out.split())
    assert "data set Digits, inputs any x 7 float labels a, b content sketch" in text
    assert f"sibling {name}: 1,398 rows against 1,400; content: 1 of 2 sampled rows in common" in text
    assert "groups 1 run with the usual objective; 1 run with label_smoothing=0.2; runs of different groups" in text
    assert "are compared in order only" in text
    assert "2 runs, 2 with an outcome" in text
    assert max(map(len, out.splitlines())) <= 80
    found = json.loads(call("tasks", "--why", "--format", "json", "--history", tmp_path / "h.db").out)
    siblings = {task["id"]: [other["id"] for other in task["siblings"]] for task in found}
    assert all(task_id in siblings[other] for task_id, others in siblings.items() for other in others)
    assert sorted(len(task["comparable_groups"]) for task in found) == [1, 2]


def test_merged_tasks_become_one(call: Callable[..., Any], recorded: Path) -> None:
    answer = call("tasks", "merge", "wine", "iris", "--history", recorded)
    assert answer.code == 0
    assert "wine" in answer.out
    assert names(call, recorded) == {"wine": 20, "digits": 10}
    assert "merged into it by hand" in call("tasks", "--why", "--history", recorded).out


def test_split_runs_move_into_a_task_that_is_new(call: Callable[..., Any], recorded: Path) -> None:
    with History(recorded) as history:
        moved = [run.id for run in history.runs("wine")][:3]
    assert call("tasks", "split", *moved, "--name", "wine-cleaned", "--history", recorded).code == 0
    assert names(call, recorded) == {"wine": 7, "iris": 10, "digits": 10, "wine-cleaned": 3}


def test_a_renamed_task_keeps_its_later_runs_and_is_found_by_its_name(call: Callable[..., Any], tmp_path: Path) -> None:
    task = TaskDescription(dataset_class="Digits", model_class="Net", objective="val_acc", direction="max")
    path = tmp_path / "h.db"

    def train(task: Any) -> None:
        with History(path) as history, history.start_run(task=task, objective="val_acc") as run:
            run.log(val_acc=0.5)

    train(task)
    assert call("tasks", "rename", "Digits-Net-val_acc", "flowers", "--history", path).code == 0
    train(task)
    train("flowers")
    train("birds")
    assert names(call, path) == {"flowers": 3, "birds": 1}
    for words in (["flowers", "birds"], ["birds", "trees"], ["nope", "x"]):
        assert call("tasks", "rename", *words, "--history", path).code == 1
    assert names(call, path) == {"flowers": 3, "birds": 1}


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
