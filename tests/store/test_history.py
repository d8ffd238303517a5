from __future__ import annotations

import math
import os
import pickle
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, load_recommendation, save_recommendation
from store import (
    FINISHED,
    History,
    InvalidArgumentError,
    RunStatus,
    UnknownRecommendationError,
    UnknownRunError,
    UnknownTaskError,
    open_history,
)


def add_run(history: History, task: str = "t", status: str = "completed", acc: float | None = 0.5, **hparams: object) -> str:
    run = history.start_run(task=task, hparams=hparams, objective="acc")
    if acc is not None:
        run.log(acc=acc)
    run.finish(status)
    return run.id


def edit(history: History, statement: str, *values: object) -> None:
    connection = sqlite3.connect(history.path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def a_recommendation(name: str = "251122-000000000-aaaaaaaa") -> Recommendation:
    return Recommendation(
        id=name,
        config={"lr": 0.01, "layers": (1, 2)},
        prediction=math.nan,
        interval=(-math.inf, 0.9),
        own_prediction=None,
        gain_probability=0.75,
        finish_probability=1.0,
        unit=Unit.RANK,
        evidence=Evidence(n_runs=4, left_out={"stale": 2}),
        decision=Decision.APPLY,
        reason="Because.",
        task_id="t1",
    )


def test_an_empty_history_answers_everything_with_nothing(history: History) -> None:
    assert history.runs() == history.tasks() == history.models() == history.metric_names() == []
    assert history.state()[0] == 0


def test_runs_come_in_the_order_they_started_and_can_be_chosen(history: History) -> None:
    ids = [add_run(history, task, status) for task, status in [("a", "completed"), ("b", "failed"), ("a", "oom"), ("a", "completed")]]
    assert [run.id for run in history.runs()] == ids
    assert [run.id for run in history.runs("a")] == [ids[0], ids[2], ids[3]]
    assert [run.id for run in history.runs(status="failed")] == [ids[1]]
    assert [run.id for run in history.runs(status=FINISHED)] == [ids[0], ids[2], ids[3]]
    assert [run.id for run in history.runs("a", limit=2, newest_first=True)] == [ids[3], ids[2]]
    assert [run.id for run in history.runs(limit=1)] == [ids[0]]
    assert history.runs(limit=0) == []


def test_hyperparameters_belong_to_the_runs_that_were_chosen(history: History) -> None:
    for index in range(5):
        add_run(history, lr=index, shape=[index])
    chosen = history.runs("t", limit=2, newest_first=True)
    assert [run.hparams for run in chosen] == [{"learning_rate": 4, "shape": [4]}, {"learning_rate": 3, "shape": [3]}]
    assert history.runs(with_hparams=False)[0].hparams == {}


def test_bad_questions_are_answered_with_what_is_possible(history: History) -> None:
    with pytest.raises(InvalidArgumentError, match=r"A status must be known, but got 'good'; possible are running, completed"):
        history.runs(status="good")
    with pytest.raises(InvalidArgumentError, match="limit must be at least 0, but got -1"):
        history.runs(limit=-1)
    with pytest.raises(UnknownTaskError, match=r"has no task 'digits'; it has no tasks yet\. Use a name or id from 'metahp tasks'"):
        history.runs("digits")
    with pytest.raises(UnknownRunError, match=r"^The history has no run 'x'; it has no runs yet"):
        history.run("x")
    run_id = add_run(history, "wine")
    with pytest.raises(UnknownTaskError, match=r"it has wine\."):
        history.task("digits")
    with pytest.raises(UnknownRunError, match=f"the newest are {run_id}"):
        history.run("x")
    with pytest.raises(UnknownRunError, match="has no run ''"):
        history.run("")


def test_a_run_is_found_by_a_unique_beginning_or_end_of_its_id(history: History) -> None:
    first, second = add_run(history), add_run(history)
    assert history.run(first[-8:]).id == first
    assert history.run(second).id == second
    with pytest.raises(UnknownRunError, match=rf"must be unambiguous, but '{first[:4]}' begins or ends 2 ids: {first}, {second}"):
        history.run(first[:4])


def test_a_task_is_found_by_name_id_and_beginning_of_its_id(history: History) -> None:
    add_run(history, "digits")
    task = history.task("digits")
    assert history.task(task.id) == history.task(task.id[:6]) == task
    assert (task.name, task.is_named, task.identity, task.n_runs) == ("digits", True, {"name": "digits"}, 1)


def test_tasks_count_their_runs_and_know_their_best(history: History) -> None:
    add_run(history, "old", acc=0.99)
    best = add_run(history, "new", acc=0.7)
    add_run(history, "new", acc=0.6)
    add_run(history, "new", acc=math.nan, status="diverged")
    add_run(history, "new", acc=0.9, status="failed")
    tasks = history.tasks()
    assert [(task.name, task.n_runs, task.n_finished) for task in tasks] == [("new", 4, 3), ("old", 1, 1)]
    assert (tasks[0].best, tasks[0].best_run_id, tasks[0].objective, tasks[0].direction) == (0.7, best, "acc", "max")
    assert tasks[0].last_run_utc == history.runs("new")[-1].started_utc


def test_a_run_without_a_task_belongs_to_its_script_and_objective(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py"])
    first = history.start_run(objective="acc")
    second = history.start_run(objective="acc")
    third = history.start_run(objective="val_loss")
    for run in (first, second, third):
        run.log(acc=0.5, val_loss=0.5)
        run.finish()
    assert first.task_id == second.task_id != third.task_id
    task = history.task(first.task_id)
    assert (task.name, task.is_named) == ("train-acc", False)
    assert task.identity == {"script": "train.py", "objective": "acc", "direction": "max"}


def test_the_shown_name_of_a_task_can_be_used_to_continue_it(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with history.start_run(objective="acc") as run:
        run.log(acc=0.5)
    for text in (history.task(run.task_id).name, run.task_id):
        with history.start_run(task=text, objective="acc") as again:
            again.log(acc=0.5)
        assert again.task_id == run.task_id
    assert len(history.tasks()) == 1
    assert not history.tasks()[0].is_named


def test_metrics_are_ordered_and_their_names_known_by_run_and_task(history: History) -> None:
    with history.start_run(task="a") as run:
        for step in (3, 1, 2):
            run.log({"loss": float(step), "lr": 0.1}, step=step, epoch=step / 2)
    with history.start_run(task="b") as other:
        other.log(mae=1.0)
    assert [record.step for record in history.metrics(run.id, "loss")] == [1, 2, 3]
    assert [record.epoch for record in history.metrics(run.id[-8:], "loss")] == [0.5, 1.0, 1.5]
    assert history.metrics(run.id, "none") == []
    assert history.metric_names(task="a") == ["loss", "lr"]
    assert history.metric_names(other.id) == ["mae"]
    assert history.metric_names() == ["loss", "lr", "mae"]


def test_what_was_logged_can_be_read_while_the_run_goes_on(history: History) -> None:
    with history.start_run(task="t") as run:
        run.log(loss=1.0)
        assert [record.value for record in history.metrics(run.id)] == [1.0]


def test_a_run_whose_process_is_gone_is_stale(history: History, tmp_path: Path) -> None:
    code = (
        "import os, sys; from store import History; run = History(sys.argv[1]).start_run(task='t', objective='acc'); print(run.id); "
        "sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(history.path)], capture_output=True, text=True, check=False)
    record = history.run(shown.stdout.strip())
    assert shown.returncode == -9
    assert (record.status, record.is_finished) == (RunStatus.STALE, False)
    assert [run.id for run in history.runs(status="stale")] == [record.id]
    assert history.runs(status="running") == []
    raw = sqlite3.connect(history.path)
    assert raw.execute("SELECT status FROM runs").fetchone() == ("running",)
    raw.close()


def test_a_run_of_another_machine_is_stale_when_its_heartbeat_is_old(history: History) -> None:
    run = history.start_run(task="t")
    edit(history, "UPDATE runs SET host_hash = 'elsewhere'")
    assert history.run(run.id).status is RunStatus.RUNNING
    old = (datetime.now(UTC) - timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    edit(history, "UPDATE runs SET heartbeat_utc = ?", old)
    assert history.runs(status="stale", limit=1)[0].id == run.id
    run.finish()
    assert history.run(run.id).status is RunStatus.COMPLETED  # stale is never final


def test_a_recommendation_comes_back_as_it_was_and_with_its_outcome(history: History) -> None:
    recommendation = a_recommendation()
    changes = [{"name": "learning_rate", "old": 0.1, "new": 0.01}]
    save_recommendation(history, recommendation, current={"lr": 0.1, "shape": (1, math.inf)}, changes=changes)
    stored = history.recommendation(recommendation.id)
    assert (stored["current"], stored["changes"]) == ({"lr": 0.1, "shape": (1, math.inf)}, changes)
    assert (stored["run_id"], stored["outcome"]) == (None, None)
    assert stored["created_utc"].endswith("Z")
    loaded = load_recommendation(history, recommendation.id[-8:])
    assert math.isnan(loaded.prediction)
    assert loaded.to_dict() | {"prediction": 0} == recommendation.to_dict() | {"prediction": 0}
    assert (type(loaded.unit), type(loaded.decision)) == (Unit, Decision)
    with history.start_run(task="t", objective="acc", recommendation_id=recommendation.id) as run:
        run.log(acc=0.8)
    with history.start_run(task="t", objective="acc", recommendation_id=recommendation.id) as pinned:
        pinned.log(acc=0.7)
    stored = history.recommendation(recommendation.id)
    assert (stored["run_id"], stored["outcome"]) == (run.id, 0.8)


def test_saving_a_recommendation_again_replaces_it(history: History) -> None:
    save_recommendation(history, a_recommendation(), changes=[])
    save_recommendation(history, a_recommendation(), changes=[{"name": "lr"}])
    assert history.recommendation("251122")["changes"] == [{"name": "lr"}]


def test_an_unknown_recommendation_is_answered_with_the_newest(history: History) -> None:
    with pytest.raises(UnknownRecommendationError, match=r"no single recommendation 'x'; it has none yet\. Use an id from a start-up"):
        history.recommendation("x")
    save_recommendation(history, a_recommendation("251122-1-aa"))
    save_recommendation(history, a_recommendation("251122-2-bb"))
    with pytest.raises(UnknownRecommendationError, match="the newest are 251122-2-bb, 251122-1-aa"):
        history.recommendation("x")
    with pytest.raises(UnknownRecommendationError, match="matching are 251122-1-aa, 251122-2-bb"):
        history.recommendation("251122")


def test_models_are_noted_oldest_first(history: History) -> None:
    row = {"id": "m1", "kind": "gp", "file": Path("m1.safetensors"), "n_runs": 12, "n_tasks": 3, "info": {"loss": math.nan, "v": (1,)}}
    history.save_model(row)
    history.save_model({**row, "id": "m2", "info": None, "info_json": '{"a":1}'})
    history.save_model({**row, "n_runs": 13})
    models = history.models()
    assert [(model["id"], model["n_runs"], model["file"]) for model in models][0:1] == [("m2", 12, "m1.safetensors")]
    assert models[0]["info"] == {"a": 1}
    assert models[1]["n_runs"] == 13
    assert models[1]["info"]["v"] == (1,)
    assert math.isnan(models[1]["info"]["loss"])


def test_the_state_changes_with_finished_runs_and_tasks_only(history: History) -> None:
    states = [history.state()]
    run = history.start_run(task="a", objective="acc")
    assert history.state() == states[0]
    run.log(acc=0.5)
    run.finish()
    states.append(history.state())
    add_run(history, "b", "failed")
    assert history.state() == states[-1]
    other = add_run(history, "b")
    states.append(history.state())
    history.merge_tasks("a", "b")
    states.append(history.state())
    history.split_task([other], "c")
    states.append(history.state())
    assert len({token for _, token in states}) == len(states)
    assert [count for count, _ in states] == [0, 1, 2, 2, 2]


def test_a_path_a_history_or_nothing_opens_a_history(history: History, isolated_history: Path) -> None:
    assert open_history(history) is history
    with open_history(history.path) as by_path, open_history(None) as default:
        assert by_path.path == history.path
        assert default.path == isolated_history


def test_several_threads_may_read_at_once(history: History) -> None:
    for index in range(5):
        add_run(history, lr=index)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: len(history.runs()) + len(history.tasks()), range(60)))
    assert set(counts) == {6}


def test_a_history_travels_to_another_process_as_its_path(history: History) -> None:
    add_run(history)
    with pickle.loads(pickle.dumps(history)) as copy:
        assert copy.path == history.path
        assert len(copy.runs()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_only_the_parent_writes_and_both_read(history: History) -> None:
    run = history.start_run(task="t", objective="acc")
    run.log(acc=0.5)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.log(acc=0.9)
            run.set_hparams({"lr": 1})
            run.finish("failed")
            own = history.start_run(task="child")
            own.finish()
            code = 0 if len(history.runs()) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.log(acc=0.6)
    run.finish()
    record = history.run(run.id)
    assert (record.status, record.objective_best, record.hparams) == (RunStatus.COMPLETED, 0.6, {})
    assert [found.status for found in history.runs("child")] == [RunStatus.COMPLETED]


def test_reading_many_runs_takes_as_many_statements_as_reading_one(history: History) -> None:
    def statements() -> list[str]:
        issued: list[str] = []
        with history._using() as connection:
            connection.set_trace_callback(issued.append)
            history.runs()
            history.state()
            connection.set_trace_callback(None)
        return issued

    with sqlite3.connect(history.path) as raw:
        add_run(history, **{f"knob{index}": index / 7 for index in range(40)})
        alone = statements()
        raw.row_factory = sqlite3.Row
        row = dict(raw.execute("SELECT * FROM runs").fetchone())
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        raw.executemany(f"INSERT INTO runs ({names}) VALUES ({marks})", [[*({**row, "id": f"x{i}"}).values()] for i in range(1000)])
        raw.execute(
            "INSERT INTO hparams SELECT r.id, name, raw_name, value_json, source, NULL, NULL FROM hparams, runs r WHERE r.id LIKE 'x%'"
        )
    raw.close()
    assert (len(history.runs()), history.state()[0]) == (1001, 1001)
    assert statements() == alone
    assert 0 < len(alone) < 10
