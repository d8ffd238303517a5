from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import History, HistoryPathError, InvalidArgumentError, UnknownRunError, UnknownTaskError


@pytest.fixture
def other(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "other.db") as opened:
        yield opened


def add_run(history: History, task: str = "t", acc: float = 0.5, **hparams: object) -> str:
    with history.start_run(task=task, hparams=hparams, objective="acc") as run:
        run.log(acc=acc, step=1)
    return run.id


def rows(history: History) -> dict[str, list[tuple[object, ...]]]:
    """Everything that learning rests on, as rows."""
    with sqlite3.connect(history.path) as raw:
        tables = {name: raw.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in ("tasks", "runs", "hparams", "metrics")}
    raw.close()
    return tables


def test_merged_tasks_are_one_and_later_runs_join_it(history: History) -> None:
    first, second = add_run(history, "a", acc=0.5), add_run(history, "b", acc=0.9)
    history.merge_tasks("a", "b")
    later = history.start_run(task="b", objective="acc")
    assert later.task_id == history.task("a").id
    later.log(acc=0.7)
    later.finish()
    task = history.task("b")
    assert [found.name for found in history.tasks()] == ["a"]
    assert (task.name, task.n_runs, task.best, task.best_run_id) == ("a", 3, 0.9, second)
    assert len(task.merged_ids) == 1
    assert {run.id for run in history.runs("b")} == {first, second, later.id}
    assert history.run(second).original_task_id == task.merged_ids[0]


def test_tasks_merge_in_chains_and_never_in_circles(history: History) -> None:
    for name in "abc":
        add_run(history, name)
    history.merge_tasks("b", "c")
    history.merge_tasks("a", "b")
    history.merge_tasks("c", "a")  # all one already
    history.merge_tasks("a", "a")
    assert history.task("c").name == "a"
    assert len(history.runs("c")) == 3


def test_merging_an_unknown_task_changes_nothing(history: History) -> None:
    add_run(history, "a")
    add_run(history, "b")
    with pytest.raises(UnknownTaskError, match="has no task 'zorp'; it has b, a"):
        history.merge_tasks("a", "b", "zorp")
    assert len(history.tasks()) == 2


def test_runs_can_be_split_off_and_a_merge_undone(history: History) -> None:
    add_run(history, "a")
    wrong = add_run(history, "a")
    task_id = history.split_task([wrong[-8:]], "mine")
    assert [(task.name, task.n_runs) for task in history.tasks()] == [("mine", 1), ("a", 1)]
    assert history.run(wrong).task_id == task_id == history.start_run(task="mine").task_id
    assert history.run(wrong).original_task_id == history.task("a").id
    history.merge_tasks("a", "mine")
    assert history.task("mine").name == "a"
    history.split_task([wrong], "mine")
    assert history.task("mine").id == task_id
    history.split_task([wrong], "a")
    assert history.run(wrong).task_id == history.task("a").id


def test_a_split_needs_runs_that_exist(history: History) -> None:
    run_id = add_run(history, "a")
    with pytest.raises(UnknownRunError, match="has no run 'zorp'"):
        history.split_task([run_id, "zorp"], "b")
    with pytest.raises(InvalidArgumentError, match=r"with at least one run, but got none for 'b'\. Pass the ids of the runs\."):
        history.split_task([], "b")
    assert [task.name for task in history.tasks()] == ["a"]


def test_a_running_run_stays_where_it_was_moved(history: History) -> None:
    run = history.start_run(task="a", objective="acc")
    history.split_task([run.id], "b")
    run.log(acc=0.5)
    run.update(n_parameters=3)
    run.finish()
    assert history.run(run.id).task_name == "b"
    assert history.run(run.id).n_parameters == 3


def test_a_merged_history_brings_everything_once(history: History, other: History) -> None:
    add_run(history, "a", lr=0.1)
    theirs = add_run(other, "a", acc=math.nan, lr=0.2, wd=0.0)
    add_run(other, "b", lr=0.3)
    evidence = Recommendation("r1", {}, 0, (0, 1), None, None, 1, Unit.RANK, Evidence(), Decision.ABSTAIN, "thin")
    save_recommendation(other, evidence)
    came_in = {"tasks": 1, "runs": 2, "runs_updated": 0, "hparams": 3, "metrics": 2, "resources": 0, "recommendations": 1}
    assert history.merge(other) == came_in | {"compactions": 0}
    before = rows(history)
    assert set(history.merge(other.path).values()) == {0}
    assert rows(history) == before
    assert [(task.name, task.n_runs) for task in history.tasks()] == [("b", 1), ("a", 2)]
    assert history.run(theirs).hparams == {"learning_rate": 0.2, "weight_decay": 0.0}
    assert math.isnan(history.metrics(theirs)[0].value)
    assert history.recommendation("r1")["recommendation"]["reason"] == "thin"


def test_two_histories_merged_both_ways_are_equal(history: History, other: History) -> None:
    for target, names in ((history, "ab"), (other, "bc")):
        for name in names:
            add_run(target, name, lr=0.1)
    history.merge(other)
    other.merge(history)
    mine, theirs = rows(history), rows(other)
    for table in ("runs", "hparams", "metrics"):
        assert mine[table] == theirs[table]
    assert {task.id for task in history.tasks()} == {task.id for task in other.tasks()}


def test_merging_brings_what_became_known_since(history: History, other: History) -> None:
    run = other.start_run(task="t", hparams={"lr": 0.1}, objective="acc")
    run.log(acc=0.1, step=1)
    history.merge(other)
    assert history.run(run.id).ended_utc is None
    run.log(acc=0.2, step=1)
    run.set_hparams({"wd": 0.5})
    run.finish()
    came_in = {name: count for name, count in history.merge(other).items() if count}
    assert came_in == {"runs": 1, "runs_updated": 1, "hparams": 2, "metrics": 1}
    record = history.run(run.id)
    assert (record.status, record.objective_best) == ("completed", 0.2)
    assert record.hparams == {"learning_rate": 0.1, "weight_decay": 0.5}


def test_corrections_travel_and_ours_stand(history: History, other: History) -> None:
    for target in (history, other):
        for name in "abc":
            add_run(target, name)
    other.merge_tasks("a", "b")
    history.merge(other)
    assert history.task("b").name == "a"
    assert len(history.runs("a")) == 4
    history.merge_tasks("c", "a")
    other.merge_tasks("a", "c")
    history.merge(other)
    assert history.task("a").name == history.task("b").name == "c"
    assert len(history.runs("c")) == 6


def test_a_history_merged_into_itself_stays_as_it_is(history: History) -> None:
    add_run(history)
    assert set(history.merge(history.path).values()) == {0}
    assert len(history.runs()) == 1


def test_only_an_existing_history_can_be_merged(history: History, tmp_path: Path) -> None:
    with pytest.raises(HistoryPathError, match="does not exist"):
        history.merge(tmp_path / "none.db")


def test_two_fingerprints_with_the_same_classes_have_names_that_differ(history: History) -> None:
    from metamodel.data.task import TaskDescription

    ids = []
    for rows in (("01",), ("02",)):
        task = TaskDescription(dataset_class="Digits", sketch=rows, model_class="Net", objective="acc", direction="max")
        with history.start_run(task=task, objective="acc") as run:
            run.log(acc=0.5)
        ids.append(run.task_id)
    names = [history.task(task_id).name for task_id in ids]
    assert names == ["Digits-Net-acc", f"Digits-Net-acc-{ids[1][1:5]}"]
    assert history.task(names[1]).id == ids[1]
