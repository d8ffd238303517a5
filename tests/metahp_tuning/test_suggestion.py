"""``suggest``: a configuration for a loop of one's own, as a new user would ask for it."""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from metahp_tuning import suggest
from metamodel import TaskDescription
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import (
    History,
    HistoryPathError,
    InvalidArgumentError,
    MetaHPWarning,
    NotAHistoryError,
    ObjectiveError,
    RunStatus,
    Source,
    SpaceError,
    UnknownHyperparameterError,
    UnknownRecommendationError,
)

ROOT = Path(__file__).resolve().parents[2]
LOG_RATES = FloatDistribution(1e-5, 1e-1, log=True)


@pytest.fixture
def taught(history: History) -> History:
    """Twelve finished runs, best near a learning rate of 0.01 and a global batch of 64."""
    rng = random.Random(0)
    for _ in range(12):
        rate, size = 10 ** rng.uniform(-5, -1), rng.choice([16, 32, 64, 128])
        hparams = {"lr": rate, "batch_size": size, "weight_decay": rng.choice([0.0, 0.01])}
        with history.start_run(task="t", hparams=hparams, objective="val_acc") as run:
            run.log(val_acc=0.9 - 0.1 * (math.log10(rate) + 2) ** 2 - 0.02 * abs(math.log2(size / 64)))
    return history


def ask(history: History, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
    given = {"lr": 1e-4, "batch_size": 32, "epochs": 3} if config is None else config
    return suggest(given, **{"task": "t", "objective": "val_acc", "history": history, **options})


def pin(history: History, monkeypatch: pytest.MonkeyPatch, **config: Any) -> str:
    numbers = (0.9, (0.8, 1.0), 0.5, 0.9, 1.0, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "better")
    save_recommendation(history, Recommendation("stored", config, *numbers))
    monkeypatch.setenv("METAHP_PIN", "stored")
    return "stored"


def test_the_names_passed_come_back_with_better_values(taught: History, capsys: pytest.CaptureFixture[str]) -> None:
    config = ask(taught)
    assert list(config) == ["lr", "batch_size", "epochs"]
    assert 1e-3 < config["lr"] < 1e-1
    assert (config["epochs"], type(config["batch_size"])) == (3, int), "the length stays, a count stays a count"
    assert config.requested["lr"] == 1e-4
    assert config.sources["lr"] == "metahp"
    assert config.message.startswith("metahp: lr 0.0001 -> 0.0")
    assert capsys.readouterr() == ("", config.message + "\n")


def test_it_is_a_mapping_like_any_other(taught: History) -> None:
    config = ask(taught, {"lr": 1e-4, "name": "x"})
    assert isinstance(config, Mapping)
    assert dict(**config) == config == pickle.loads(pickle.dumps(config))
    assert json.loads(json.dumps(dict(config))) == dict(config)
    assert repr(config) == f"Suggestion({dict(config)!r})"
    assert (config.get("dropout", 0.5), "lr" in config, len(config)) == (0.5, True, 2)
    with pytest.raises(TypeError):
        config["lr"] = 1


def test_a_run_of_the_configuration_says_what_was_recommended(taught: History) -> None:
    config = ask(taught)
    with taught.start_run(hparams=config) as run:
        run.log(val_acc=0.9)
    row = taught.run(run.id)
    rate = row.provenance["learning_rate"]
    assert (rate.raw_name, rate.value, rate.requested, rate.source) == ("lr", config["lr"], 1e-4, Source.METAHP)
    assert row.provenance["num_epochs"].source is Source.USER
    assert (row.task_name, row.objective, row.direction, row.objective_best) == ("t", "val_acc", "max", 0.9)
    assert row.recommendation_id == config.recommendation_id == config.recommendation.id
    stored = taught.recommendation(row.recommendation_id)
    assert (stored["run_id"], stored["outcome"]) == (row.id, 0.9)
    assert {change["raw_name"]: (change["old"], change["new"]) for change in stored["changes"]}["lr"] == (1e-4, config["lr"])
    assert len(taught.tasks()) == 1


def test_what_start_run_is_given_comes_before_what_the_configuration_knows(taught: History) -> None:
    given = {"task": "other", "objective": "val_loss", "sources": {"lr": "user"}, "requested": {"lr": 5.0}, "recommendation_id": "mine"}
    with taught.start_run(hparams=ask(taught), **given) as run:
        run.log(val_loss=0.9)
    row = taught.run(run.id)
    assert (row.task_name, row.objective, row.direction, row.recommendation_id) == ("other", "val_loss", "min", "mine")
    assert (row.provenance["learning_rate"].source, row.provenance["learning_rate"].requested) == (Source.USER, 5.0)


def test_a_name_is_found_under_any_spelling(taught: History) -> None:
    config = ask(taught, {"learning_rate": 1e-4, "bs": 32}, space={"lr": LOG_RATES, "batch_size": [32, 64]})
    assert set(config.requested) == {"learning_rate", "bs"}


def test_without_a_space_only_what_is_safe_changes(taught: History) -> None:
    for layers in (1, 2, 3, 4):
        with taught.start_run(task="t", hparams={"lr": 0.01, "n_layers": layers}, objective="val_acc") as run:
            run.log(val_acc=0.9 + 0.01 * layers)
    assert "n_layers" not in ask(taught, {"lr": 1e-4, "n_layers": 1}).requested
    assert "n_layers" in ask(taught, {"lr": 1e-4, "n_layers": 1}, space={"n_layers": IntDistribution(1, 4)}).requested


def test_a_space_permits_and_limits(taught: History, capsys: pytest.CaptureFixture[str]) -> None:
    config = ask(taught, space={"lr": [1e-5, 2e-2]})
    assert (config["lr"], config["batch_size"]) == (2e-2, 32)


def test_what_keep_names_stays_and_the_message_says_so(taught: History, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(taught, keep="lr")["lr"] == 1e-4
    assert "lr stays 0.0001: named in keep" in capsys.readouterr().err
    config = ask(taught, space={"lr": LOG_RATES, "batch_size": [32, 64]}, keep=["learning_rate"])
    assert set(config.requested) <= {"batch_size"}
    everything = ask(taught, {"lr": 1e-4}, keep=["lr"])
    assert everything.message == "metahp: nothing changed; no tunable hyperparameter remains\n  lr stays 0.0001: named in keep"


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        ({"batch_size": 8, "world": 1}, {"world_size": 4, "space": {"global_batch_size": [64]}}, {"batch_size": 16}),
        ({"batch_size": 8, "grad_accum": 2}, {"space": {"batch_size": [4, 32]}}, {"batch_size": 32}),
        ({"batch_size": 8, "grad_accum": 2}, {"space": {"batch_size": [32], "grad_accum": [2]}}, {"batch_size": 32}),
        ({"global_batch_size": 8}, {"space": {"global_batch_size": [64]}}, {"global_batch_size": 64}),
        ({"global_batch_size": 8}, {"space": {"batch_size": [64]}}, {"global_batch_size": 64}),
        ({"total_train_batch_size": np.int64(8)}, {"space": {"global_batch_size": [64]}}, {"total_train_batch_size": 64}),
    ],
)
def test_the_batch_is_decided_as_a_global_one(taught: History, given: Any, options: Any, expected: dict[str, int]) -> None:
    assert {name: value for name, value in ask(taught, given, **options).items() if name in expected} == expected


def test_a_global_batch_of_its_own_is_tuned_without_a_space(taught: History) -> None:
    config = ask(taught, {"lr": 1e-2, "global_batch_size": 16}, keep="lr")
    assert 32 < config["global_batch_size"] <= 128


def test_the_batch_stays_within_the_data(taught: History) -> None:
    config = ask(taught, {"lr": 1e-4, "batch_size": 32}, space={"batch_size": [32, 64]}, train_dataset=range(40), world_size=2)
    assert (config["batch_size"], config.sources["batch_size"]) == (20, "constraint")
    assert "batch_size: the data set has 40 samples" in config.message or "but the data set has 40 samples" in config.message


def test_a_dry_run_changes_and_links_nothing(taught: History, capsys: pytest.CaptureFixture[str]) -> None:
    config = ask(taught, mode="dry-run")
    assert dict(config) == {"lr": 1e-4, "batch_size": 32, "epochs": 3}
    assert (config.requested, config.sources, config.recommendation_id) == ({}, {}, None)
    message = capsys.readouterr().err
    assert "lr 0.0001 -> 0.0" in message
    assert "Dry run: nothing was rewritten." in message
    with taught.start_run(hparams=config) as run:
        run.log(val_acc=0.5)
    row = taught.run(run.id)
    assert (row.recommendation_id, row.hparams["learning_rate"], row.provenance["learning_rate"].source) == (None, 1e-4, Source.USER)


@pytest.mark.parametrize("word", ["off", "0", "False", "NO"])
def test_off_returns_what_was_given(
    taught: History, monkeypatch: pytest.MonkeyPatch, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METAHP", word)
    config = ask(taught)
    assert dict(config) == {"lr": 1e-4, "batch_size": 32, "epochs": 3}
    assert (config.recommendation, config.recommendation_id, config.message) == (None, None, "")
    assert capsys.readouterr() == ("", "")


def test_a_pinned_recommendation_is_applied_and_names_what_is_not(taught: History, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = pin(taught, monkeypatch, lr=0.03, weight_decay=0.2, n_layers=4, dropout=0.3, batch_size=64)
    config = ask(taught, {"lr": 1e-4, "n_layers": 2, "dropout": 0.1, "batch_size": 32}, keep="dropout")
    assert config.recommendation_id == identity
    assert dict(config) == {"lr": 0.03, "n_layers": 2, "dropout": 0.1, "batch_size": 64}
    for line in (
        "weight_decay 0.2 was not applied: this run has no such hyperparameter",
        "n_layers 4 was not applied: without a space it is never rewritten; list it in space",
        "dropout stays 0.1: named in keep; 0.3 was not applied",
    ):
        assert line in config.message
    assert "expected" not in config.message, "the prediction is for all values together"
    space = {"lr": [0.03], "n_layers": [4], "dropout": [0.3], "weight_decay": [0.2], "batch_size": [64]}
    complete = ask(taught, {"lr": 1e-4, "n_layers": 2, "dropout": 0.1, "weight_decay": 0.0, "batch_size": 32}, space=space)
    assert "not applied" not in complete.message
    assert complete == {"lr": 0.03, "n_layers": 4, "dropout": 0.3, "weight_decay": 0.2, "batch_size": 64}


def test_an_unknown_pin_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP_PIN", "nobody")
    with pytest.raises(UnknownRecommendationError, match="nobody"):
        suggest({"lr": 1e-4}, task="t", objective="val_acc", history=tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_a_new_history_is_made_by_the_run_and_holds_the_recommendation(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "new.db"
    config = suggest({"lr": 1e-4}, task="t", objective="val_acc", history=path)
    assert "nothing changed; not enough history (no run with an outcome)" in config.message
    assert not path.parent.exists()
    with History(path) as history:
        for _ in range(2):
            with history.start_run(hparams=config) as run:
                run.log(val_acc=0.5)
            assert history.run(run.id).recommendation_id == config.recommendation_id
        assert history.recommendation(str(config.recommendation_id))["current"] == {"lr": 1e-4}


def test_the_default_history_is_used_and_not_made(isolated_history: Path) -> None:
    suggest({"lr": 1e-4}, task="t", objective="val_acc")
    assert not isolated_history.exists()
    with History() as history, history.start_run(hparams=suggest({"lr": 1e-4}, task="t", objective="val_acc")) as run:
        run.log(val_acc=0.5)
    assert isolated_history.exists()


def test_a_history_that_was_given_and_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no history, but long enough to be looked at as one, and then some more of it " * 10)
    with pytest.raises(NotAHistoryError):
        suggest({"lr": 1e-4}, task="t", objective="val_acc", history=tmp_path / "notes.txt")
    with pytest.raises(HistoryPathError):
        suggest({"lr": 1e-4}, task="t", objective="val_acc", history=3.5)  # type: ignore[arg-type]


def test_a_default_history_that_cannot_be_used_costs_the_advice_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "notes.txt").write_text("no history, but long enough to be looked at as one, and then some more of it " * 10)
    monkeypatch.setenv("METAHP_HISTORY", str(tmp_path / "notes.txt"))
    assert suggest({"lr": 1e-4}, task="t", objective="val_acc") == {"lr": 1e-4}
    assert "metahp: nothing changed; opening the history failed with NotAHistoryError" in caplog.text


def test_an_error_of_ours_costs_the_advice_only(taught: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise ZeroDivisionError("in the model")

    monkeypatch.setattr("metamodel.recommend", broken)
    assert ask(taught) == {"lr": 1e-4, "batch_size": 32, "epochs": 3}
    assert "the recommendation failed with ZeroDivisionError: in the model" in caplog.text


@pytest.mark.parametrize(
    ("config", "options", "error", "message"),
    [
        ([("lr", 1)], {}, InvalidArgumentError, r"config must be a mapping of names to values, but got list\. Pass for example"),
        (argparse.Namespace(lr=1), {}, InvalidArgumentError, r"but got Namespace\. Pass vars\(\.\.\.\) of it\."),
        ({1: 2}, {}, InvalidArgumentError, r"config must be a mapping of names to values, but got the name 1"),
        ({"lr": 1}, {"task": 3}, InvalidArgumentError, "A task must be a name"),
        ({"lr": 1}, {"task": ""}, InvalidArgumentError, "A task must be a name"),
        ({"lr": 1}, {"mode": "fast"}, InvalidArgumentError, "mode must be one of 'best', 'explore', 'dry-run', but got 'fast'"),
        ({"lr": 1}, {"keep": [1]}, InvalidArgumentError, "keep must list hyperparameter names, but got 1"),
        ({"lr": 1}, {"keep": 1}, InvalidArgumentError, "keep must list hyperparameter names, but got 1"),
        ({"lr": 1}, {"keep": None}, InvalidArgumentError, "keep must list hyperparameter names, but got None"),
        ({"lr": 1}, {"max_startup_s": 0}, InvalidArgumentError, "max_startup_s must be a positive number"),
        ({"lr": 1}, {"world_size": 0}, InvalidArgumentError, "world_size must be a whole number, at least 1, but got 0"),
        ({"lr": 1}, {"space": {"lr": 3}}, SpaceError, "lr"),
        ({"lr": 1}, {"space": {"lrr": [1, 2]}}, UnknownHyperparameterError, r"suggest\(\), but got 'lrr'; it has: lr. Did you mean 'lr'\?"),
        ({"lr": 1}, {"space": {"width": [1, 2]}}, UnknownHyperparameterError, "Pass its present value in the configuration, too."),
        ({"lr": 1}, {"keep": "width"}, UnknownHyperparameterError, "but got 'width'; it has: lr"),
        ({"lr": 1}, {"space": {"global_batch_size": [8]}}, UnknownHyperparameterError, "'global_batch_size'"),
        ({"lr": 1}, {"objective": "zorp"}, ObjectiveError, "possible are 'min' and 'max'"),
        ({"lr": 1}, {"direction": "up"}, ObjectiveError, "A direction must be 'min' or 'max', but got 'up'"),
    ],
)
def test_a_mistake_is_answered_with_what_is_possible(config: Any, options: Any, error: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        suggest(config, **{"task": "t", "objective": "val_acc", "history": tmp_path / "new.db", **options})
    assert not (tmp_path / "new.db").exists()


def test_what_is_missing_is_asked_for(taught: History) -> None:
    assert "the task cannot be recognised. Pass task='a name for it'" in suggest({"lr": 1}, objective="val_acc", history=taught).message
    assert "objective is not known. Pass objective='val_loss'" in suggest({"lr": 1}, task="new", history=taught).message
    known = suggest({"lr": 1e-4}, task="t", history=taught)
    assert "The objective val_acc (max) is that of earlier runs of this task." in known.message
    assert known["lr"] > 1e-3


def test_values_of_any_kind_may_stand_in_a_configuration(taught: History) -> None:
    odd = {
        "lr": np.float64(1e-4),
        "batch_size": np.int64(32),
        "layers": [64, 64],
        "model": object(),
        "none": None,
        "seed": 3,
        "dtype": float,
    }
    config = ask(taught, odd)
    assert {name: config[name] for name in odd if name not in ("lr", "batch_size")} == {
        name: value for name, value in odd.items() if name not in ("lr", "batch_size")
    }
    assert config["lr"] > 1e-3
    with taught.start_run(hparams=config) as run:
        run.log(val_acc=0.5)


def test_a_description_of_the_task_may_be_passed(taught: History) -> None:
    description = TaskDescription(name="t", n_train=500)
    config = ask(taught, task=description)
    assert config["lr"] > 1e-3
    with taught.start_run(hparams=config) as run:
        run.log(val_acc=0.5)
    assert (taught.run(run.id).task_name, taught.run(run.id).description["n_train"], len(taught.tasks())) == ("t", 500, 1)


def test_only_the_first_process_prints(taught: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert ask(taught, world_size=1)["lr"] > 1e-3
    assert capsys.readouterr() == ("", "")


def test_processes_without_a_connection_do_not_decide_each_for_itself(taught: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = ask(taught)
    assert config["lr"] == 1e-4
    assert "cannot agree yet. Call suggest() after torch.distributed.init_process_group() (with Accelerate: after Accel" in config.message
    pin(taught, monkeypatch, lr=0.03)
    assert ask(taught)["lr"] == 0.03, "a pinned one is the same for all"


RANKS = """
import os, sys
import torch.distributed as dist
from metahp_tuning import suggest
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[3]), world_size=2)
history = sys.argv[2] if dist.get_rank() == 0 else sys.argv[2] + ".not-here"
config = suggest({"lr": 1e-4, "batch_size": 16}, task="t", objective="val_acc", history=history)
print(config["lr"], config["batch_size"], config.recommendation_id)
try:
    suggest({"lr": 1e-4}, task="t", objective="val_acc", history=__file__ if dist.get_rank() == 0 else None)
except Exception as error:
    print(type(error).__name__)
"""


def test_all_ranks_get_what_the_first_one_decided(taught: History, tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "meet"), str(taught.path)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for rank in (0, 1)
    ]
    (first, first_errors), (second, second_errors) = [rank.communicate(timeout=120) for rank in ranks]
    assert first == second, first_errors + second_errors
    assert float(first.split()[0]) > 1e-3
    assert first.split()[-1] == "NotAHistoryError"
    assert "metahp: lr 0.0001 -> " in first_errors
    assert "metahp:" not in second_errors


def loaded_after(code: str, **environment: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **environment}
    )
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    ("first", "environment"),
    [
        ("", {}),
        ("c = suggest({'lr': 1e-4, 'batch_size': 8}, task='t', objective='val_acc')\nHistory().start_run(hparams=c).finish()", {}),
        ("suggest({'lr': 1e-4}, task='t', objective='val_acc', space={'lr': [0.1]})", {"METAHP": "off"}),
    ],
    ids=["imported", "first day", "off"],
)
def test_torch_is_not_loaded_before_there_is_something_to_learn_from(first: str, environment: dict[str, str]) -> None:
    loaded = loaded_after(f"from metahp_tuning import suggest\nfrom store import History\n{first}", **environment)
    assert not loaded & {"torch", "lightning", "transformers", "sklearn"}


def test_a_keras_like_loop(taught: History) -> None:
    """As with Keras: a dictionary of keywords for compile and fit, and a history object whose numbers are logged."""
    config = ask(taught, {"learning_rate": 1e-4, "batch_size": 32, "epochs": 2, "optimizer": "adam"}, train_dataset=np.zeros((500, 3)))
    curve = {"loss": [0.7, 0.5], "val_acc": [0.6, 0.8]}
    with taught.start_run(hparams=config) as run:
        for epoch in range(config["epochs"]):
            run.log({name: values[epoch] for name, values in curve.items()}, epoch=epoch + 1)
    row = taught.run(run.id)
    assert (row.status, row.objective_best, row.description["n_train"]) == (RunStatus.COMPLETED, 0.8, 500)


def test_a_scikit_learn_estimator(history: History) -> None:
    from sklearn.ensemble import RandomForestClassifier

    space = {"max_depth": IntDistribution(1, 12), "max_features": FloatDistribution(0.1, 1.0), "criterion": ["gini", "entropy"]}
    rng = random.Random(0)
    for _ in range(12):
        given = {"max_depth": rng.randint(1, 12), "max_features": rng.uniform(0.1, 1.0), "criterion": rng.choice(["gini", "entropy"])}
        with history.start_run(task="wine", hparams=given, objective="accuracy") as run:
            run.log(accuracy=0.9 - 0.01 * abs(given["max_depth"] - 8) - 0.1 * given["max_features"])
    forest = RandomForestClassifier(max_depth=None, n_estimators=5, random_state=0)
    config = suggest(forest.get_params(), space=space, task="wine", objective="accuracy", history=history, model=forest)
    assert type(config["max_depth"]) is int
    assert 6 <= config["max_depth"] <= 10
    forest.set_params(**config).fit([[0.0], [1.0]], [0, 1])
    with history.start_run(hparams=config) as run:
        run.log(accuracy=0.9)
    row = history.run(run.id)
    assert (row.model_class, row.provenance["max_depth"].requested) == ("RandomForestClassifier", None)
    assert row.provenance["max_depth"].source is Source.METAHP


class TestTorch:
    """A torch model and its data."""

    @pytest.fixture
    def parts(self) -> tuple[Any, Any]:
        import torch
        from torch import nn
        from torch.utils.data import TensorDataset

        data = TensorDataset(torch.randn(300, 20, generator=torch.Generator().manual_seed(0)), torch.arange(300) % 3)
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3)), data

    def test_the_first_day_has_advice(self, parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("METAHP_STARTER", "1")
        model, data = parts
        path = tmp_path / "new.db"
        given = {"lr": 1e-5, "batch_size": 256, "epochs": 5, "optimizer": "Adam"}
        config = suggest(given, model=model, train_dataset=data, objective="val_acc", history=path)
        assert config["lr"] > 1e-4
        assert config["optimizer"] == "Adam"
        assert "starter history" in config.message
        assert not path.exists()
        with History(path) as history:
            with history.start_run(hparams=config) as run:
                run.log(val_acc=0.5)
            row = history.run(run.id)
            assert history.recommendation(row.recommendation_id or "")["recommendation"]["task_id"] == row.task_id
        assert (row.model_class, row.model_family, row.n_parameters) == ("Sequential", "mlp", 771)
        assert (row.description["n_train"], row.description["input_shape"], row.description["n_classes"]) == (300, [20], 3)

    def test_runs_without_a_name_are_recognised_again(self, parts: Any, history: History) -> None:
        from torch.utils.data import DataLoader

        model, data = parts
        for rate in (1e-5, 1e-4, 1e-3, 1e-2, 3e-2):
            given = suggest({"lr": rate}, model=model, train_dataset=data, objective="val_acc", history=history, keep="lr")
            with history.start_run(hparams=given) as run:
                run.log(val_acc=0.9 - 0.1 * abs(math.log10(rate) + 2))
        config = suggest({"lr": 1e-5}, model=model, train_dataset=DataLoader(data, 16), objective="val_acc", history=history)
        assert config["lr"] > 1e-4
        assert "from 5 runs of this task" in config.message

    def test_runs_of_changed_source_count_as_related(self, parts: Any, history: History) -> None:
        model, data = parts
        for rate in (1e-5, 1e-4, 1e-3, 1e-2, 3e-2):
            with history.start_run(task="t", hparams={"lr": rate}, objective="val_acc", variant="an older source") as run:
                run.log(val_acc=0.9 - 0.1 * abs(math.log10(rate) + 2))
        found = ask(history, {"lr": 1e-5}, model=model, train_dataset=data).recommendation.evidence
        assert (found.n_runs, found.n_related) == (0, 5)

    def test_a_model_that_cannot_be_described_costs_nothing(self, taught: History, caplog: pytest.LogCaptureFixture) -> None:
        from torch import nn

        class Odd(nn.Module):
            def parameters(self, recurse: bool = True) -> Any:
                raise RuntimeError("not now")

        config = ask(taught, {"lr": 1e-4}, model=Odd())
        assert config == {"lr": 1e-4}
        with taught.start_run(task="t", objective="val_acc", hparams=config) as run:
            run.log(val_acc=0.5)


def test_a_word_that_no_switch_knows_is_named_with_those_it_does(taught: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP_STARTER", "perhaps")
    with pytest.warns(MetaHPWarning, match="METAHP_STARTER must be one of 0, 1, false, no, off, on, true, yes, but is 'perhaps'"):
        ask(taught, mode="dry-run")


def test_a_loader_is_counted_by_its_samples() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.zeros(1000, 4))
    config = suggest({"lr": 1e-3, "batch_size": 128}, task="t", objective="val_acc", train_dataset=DataLoader(data, 128))
    assert config["batch_size"] == 128


def test_two_spellings_of_one_hyperparameter_are_both_left_alone(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, learning_rate=0.02, global_batch_size=64)
    given = {"lr": 1e-4, "max_lr": 1e-3, "batch_size": 8, "global_batch_size": 32}
    config = suggest(given, task="t", objective="val_acc", history=history)
    assert dict(config) == {"lr": 1e-4, "max_lr": 1e-3, "batch_size": 8, "global_batch_size": 32}
    assert "lr and max_lr both mean learning_rate" in config.message


def test_an_objective_named_again_keeps_its_direction(tmp_path: Path) -> None:
    config = suggest({"lr": 1e-4}, task="t", objective="foo", direction="max", history=tmp_path / "h.db")
    with History(tmp_path / "h.db") as history, history.start_run(hparams=config, objective="foo") as run:
        run.log(foo=1.0)
        assert history.run(run.id).direction == "max"


def test_switched_off_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untouchable:
        def __len__(self) -> int:
            raise AssertionError("looked at")

        __getitem__ = __len__

    monkeypatch.setenv("METAHP", "off")
    assert dict(suggest({"lr": 1e-4}, task="t", objective="val_acc", train_dataset=Untouchable())) == {"lr": 1e-4}


def test_slurm_ranks_do_not_decide_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert "cannot agree yet" in suggest({"lr": 1e-4}, task="t", objective="val_acc").message


def test_a_pin_whose_values_are_in_force_is_explained(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, learning_rate=1e-4)
    message = suggest({"lr": 1e-4}, task="t", objective="val_acc", history=history).message
    assert "every value of the pinned recommendation is in force already" in message
    assert "pinned by METAHP_PIN" in message
