"""``metahp runs`` and ``metahp show RUN``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import History


def test_runs_are_listed_newest_first_up_to_the_limit(call: Callable[..., Any], recorded: Path) -> None:
    answer = call("runs", "--history", recorded, "--limit", "4", "--format", "json")
    listed = json.loads(answer.out)
    with History(recorded) as history:
        assert [run["id"] for run in listed] == [run.id for run in history.runs(newest_first=True, limit=4)]
    assert answer.code == 0
    assert answer.err == "There are more; --limit 0 lists all.\n"


def test_a_limit_of_zero_lists_all_runs_one_line_each(call: Callable[..., Any], recorded: Path) -> None:
    answer = call("runs", "--history", recorded, "--limit", "0")
    assert len(answer.out.splitlines()) == 2 + 30
    assert answer.err == ""


def test_runs_can_be_chosen_by_task_and_status(call: Callable[..., Any], recorded: Path) -> None:
    answer = call("runs", "--history", recorded, "--task", "iris", "--status", "diverged, failed", "--format", "json")
    (run,) = json.loads(answer.out)
    assert (run["task_name"], run["status"], run["objective_last"]) == ("iris", "diverged", "nan")
    assert run["hparams"]["api_token"] == "[redacted]"


def test_nothing_found_is_an_empty_list_and_a_remark(call: Callable[..., Any], recorded: Path) -> None:
    answer = call("runs", "--history", recorded, "--status", "oom", "--format", "json")
    assert (answer.code, json.loads(answer.out), answer.err) == (0, [], f"No such runs in {recorded}.\n")


def test_the_default_history_is_read_without_an_option(call: Callable[..., Any], recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP_HISTORY", str(recorded))
    assert "digits" in call("runs").out


def test_a_history_that_does_not_exist_is_one_line_and_is_not_created(call: Callable[..., Any], isolated_history: Path) -> None:
    answer = call("runs")
    assert (answer.code, answer.out) == (1, "")
    assert len(answer.err.splitlines()) == 1
    assert str(isolated_history) in answer.err
    assert not isolated_history.exists()
    assert not isolated_history.parent.exists()


def test_show_shows_who_chose_each_value_and_sums_up_the_metrics(call: Callable[..., Any], recorded: Path) -> None:
    with History(recorded) as history:
        run = history.runs("digits", status="diverged")[0]
    shown = json.loads(call("show", run.id, "--history", recorded, "--format", "json").out)
    assert {item["name"]: item["source"] for item in shown["provenance"]} == {
        "learning_rate": "user",
        "per_device_batch_size": "default",
        "api_token": "user",
    }
    loss = next(row for row in shown["metrics"] if row["name"] == "loss")
    assert loss == {"name": "loss", "count": 4, "first": 1.0, "last": "inf", "min": 1 / 3, "min_step": 2, "max": 1.0, "max_step": 0}
    assert shown["recommendation"] is None
    table = call("show", run.id, "--history", recorded).out
    for text in (run.id, "diverged", "learning_rate", "default", "val_acc (max)", "python="):
        assert text in table


def test_the_start_of_an_id_is_enough_for_show(call: Callable[..., Any], recorded: Path) -> None:
    with History(recorded) as history:
        run_id = history.runs()[0].id
    assert run_id in call("show", run_id[:-2], "--history", recorded).out


def test_show_shows_what_was_advised_and_what_came_of_it(call: Callable[..., Any], recorded: Path) -> None:
    given = Recommendation(
        "r1", {"lr": 1e-3}, 0.9, (0.8, 1.0), 0.7, 0.95, 0.99, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "it is better"
    )
    changes = [{"name": "learning_rate", "raw_name": "lr", "old": 0.1, "new": 1e-3, "source": "metahp", "reason": "it is better"}]
    with History(recorded) as history:
        save_recommendation(history, given, current={"lr": 0.1}, changes=changes)
        run = history.start_run(task="digits", hparams={"lr": 1e-3}, sources={"lr": "metahp"}, objective="val_acc", recommendation_id="r1")
        with run:
            run.log(val_acc=0.93)
    table = call("show", run.id, "--history", recorded).out
    for text in ("r1", "apply", "lr 0.1 -> 0.001", "expected val_acc 0.9", "9 runs of this task", "val_acc 0.93"):
        assert text in table
    shown = json.loads(call("show", run.id, "--history", recorded, "--format", "json").out)
    assert shown["recommendation"]["recommendation"]["id"] == "r1"
    assert shown["recommendation"]["outcome"] == 0.93


def test_an_unknown_run_is_an_error_with_the_possible_ones(call: Callable[..., Any], recorded: Path) -> None:
    answer = call("show", "nothing", "--history", recorded)
    assert answer.code == 1
    assert answer.err.startswith("Error: The history has no run 'nothing'")
