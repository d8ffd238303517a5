"""What a person is told at the start of a run."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metahp_tuning import suggest
from metahp_tuning.messages import describe_change, start_message
from metahp_tuning.precedence import Change, Kept, Setting, plan_changes
from metamodel import TaskDescription
from metamodel.explanation import describe_evidence, show_change
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit
from store import History, Source


def abstention(reason: str = "not enough history (no run with an outcome)") -> Recommendation:
    return Recommendation("r1", {}, 0.5, (0.1, 0.9), None, None, 1.0, Unit.RANK, Evidence(), Decision.ABSTAIN, reason)


def record(history: History, task: str | TaskDescription, n: int = 6, **more: list[object]) -> None:
    draw = random.Random(0)
    for i in range(n):
        config = {"lr": 10 ** draw.uniform(-4, -1), **{name: values[i % len(values)] for name, values in more.items()}}
        with history.start_run(task=task, hparams=config, objective="val_acc") as run:
            run.log(val_acc=1 - abs(config["lr"] - 0.01))


def test_an_abstention_is_one_line_without_a_pin() -> None:
    text = start_message(abstention(), [], [Kept("dropout", "dropout", 0.1, "named in keep")], note="The data cannot be seen.")
    assert text == (
        "metahp: nothing changed; not enough history (no run with an outcome). dropout stays 0.1: named in keep. The data cannot be seen."
    )


@pytest.mark.parametrize(
    ("raw", "old", "new", "shown"),
    [
        ("warmup_steps", 0, 0.06, "warmup_steps 0 -> 6% of the steps"),
        ("warmup_steps", 0.1, 0.025, "warmup_steps 10% of the steps -> 2.5% of the steps"),
        ("warmup_steps", 10, 100, "warmup_steps 10 -> 100"),
        ("warmup_ratio", 0.0, 0.06, "warmup_ratio 0 -> 0.06"),
    ],
)
def test_a_share_of_warm_up_is_shown_as_a_share(raw: str, old: float, new: float, shown: str) -> None:
    assert describe_change(Change("warmup_ratio", raw, old, new, Source.METAHP, "")) == shown


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        (0.1, 0.10004, "dropout 0.1 -> 0.10004"),
        (0.1, 0.1000004, "dropout 0.1 -> 0.1000004"),
        (32, 64, "dropout 32 -> 64"),
        ("0.1", 0.1, "dropout '0.1' -> 0.1"),
        (0.1, 0.10000000149011612, ""),
        (1, 1.0, ""),
        ("adam", "adam", ""),
    ],
)
def test_a_change_shows_as_many_digits_as_tell_its_values_apart(old: object, new: object, shown: str) -> None:
    assert show_change("dropout", old, new) == shown


def test_a_value_that_is_the_same_but_for_rounding_is_not_rewritten() -> None:
    setting = Setting("dropout", 0.1, Source.DEFAULT)
    recommended = replace(abstention(), config={"dropout": 0.10000000149011612}, decision=Decision.APPLY)
    assert plan_changes({"dropout": setting}, recommended) == []
    (change,) = plan_changes({"dropout": setting}, replace(recommended, config={"dropout": 0.10004}))
    assert start_message(recommended, [change]).startswith("metahp: dropout 0.1 -> 0.10004\n")


@pytest.mark.parametrize(
    ("evidence", "shown"),
    [
        (Evidence(), "no run with an outcome"),
        (Evidence(n_runs=5), "5 runs of this task"),
        (
            Evidence(n_runs=5, n_related=1, related={"of 1 epoch (in order only)": 1}),
            "5 runs of this task and 1 of 1 epoch (in order only)",
        ),
        (Evidence(n_related=2, related={"with other model code": 2}), "2 runs of this task with other model code"),
        (
            Evidence(n_runs=1, n_related=5, related={"of 1 epoch (in order only)": 2, "with validation=2 batches (in order only)": 3}),
            "1 run of this task, 3 with validation=2 batches (in order only) and 2 more",
        ),
        (Evidence(n_sibling_runs=3, n_siblings=1, n_other_runs=16, n_tasks=2), "3 runs of 1 sibling task and 16 runs of 2 other tasks"),
        (
            Evidence(n_runs=1, n_sibling_runs=3, n_siblings=1, n_other_runs=16, n_tasks=2, n_starter_tasks=1, n_starter_runs=9),
            "1 run of this task, 3 runs of 1 sibling task and 16 more; prior from the starter history (9 small networks of 1 task)",
        ),
    ],
)
def test_at_most_two_sources_of_evidence_are_named(evidence: Evidence, shown: str) -> None:
    assert describe_evidence(evidence) == shown


def test_a_mistyped_task_is_told_of_the_one_that_has_runs(history: History) -> None:
    record(history, "digits")
    message = suggest({"lr": 0.1}, task="digts", objective="val_acc", history=history).message
    assert len(message.splitlines()) == 1
    assert "Another task, 'digits', has 6 finished runs, 6 with an outcome. Pass task='digits' if it is the same" in message
    assert "metahp tasks --why" in message
    assert "Another task" not in suggest({"lr": 0.1}, task="flowers", objective="val_acc", history=history).message


def test_a_task_of_other_data_is_told_what_sets_it_apart(history: History) -> None:
    known = {"dataset_class": "Digits", "model_class": "Net", "objective": "val_acc", "direction": "max"}
    record(history, TaskDescription(**known, n_classes=10))
    message = suggest({"lr": 0.1}, task=TaskDescription(**known, n_classes=11), history=history).message
    assert "n_classes is 10 there, 11 here" in message
    other = TaskDescription(dataset_class="Flowers", model_class="Net", objective="val_acc", direction="max", n_classes=11)
    assert "Pass task=" not in suggest({"lr": 0.1}, task=other, history=history).message


def test_a_task_whose_objective_is_not_known_is_told_of_the_one_with_runs(history: History) -> None:
    known = {"dataset_class": "Digits", "model_class": "Net"}
    record(history, TaskDescription(**known, n_classes=10, objective="val_acc", direction="max"))
    message = suggest({"lr": 0.1}, task=TaskDescription(**known, n_classes=11), history=history).message
    assert "the objective is not known" in message
    assert "n_classes is 10 there, 11 here. Pass task=" in message


def test_what_earlier_runs_varied_and_nothing_rewrites_is_named(history: History) -> None:
    record(history, "boosting", 12, max_depth=[1, 2, 3])
    given = {"lr": 0.1, "max_depth": 3}
    message = suggest(given, task="boosting", objective="val_acc", history=history).message
    assert "Earlier runs also varied max_depth: list it in space to have it tuned." in message
    listed = suggest(given, task="boosting", objective="val_acc", history=history, space={"max_depth": [1, 2, 3]}).message
    assert "also varied" not in listed


def test_the_folds_of_a_loop_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        config = suggest({"lr": 0.1}, task="folds", objective="val_acc", history=tmp_path / "h.db")
        with History(tmp_path / "h.db") as history, history.start_run(hparams=config) as run:
            run.log(val_acc=0.5)
        assert "nothing changed" in config.message, "whoever asks is told"
    assert capsys.readouterr().err.count("metahp: nothing changed") == 1


def test_changes_are_told_in_each_fold_and_the_rest_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with History(tmp_path / "h.db") as history:
        record(history, "folds", 12)
    for _ in range(3):
        suggest({"lr": 0.5}, task="folds", objective="val_acc", history=tmp_path / "h.db")
    said = capsys.readouterr().err
    assert said.count("metahp: lr 0.5 -> ") == 3
    assert said.count("expected val_acc") == 1


def test_a_near_task_is_named_where_the_starter_history_answers(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP_STARTER", "1")
    record(history, "digits", n=3)
    network = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    data = torch.utils.data.TensorDataset(torch.randn(200, 4), torch.zeros(200, dtype=torch.long))
    known = {"model": network, "train_dataset": data, "history": history, "objective": "val_acc"}
    found = suggest({"lr": 1e-5, "optimizer": "Adam"}, space={"lr": [1e-5, 1e-3, 1e-2]}, task="digit", **known)
    assert "from the starter history" in found.message
    assert "Another task, 'digits', has 3 finished runs" in found.message
