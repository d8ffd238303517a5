from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from metahp_report.importance import columns, importances, mean_importances


def test_what_decides_gets_nearly_everything() -> None:
    rng = np.random.default_rng(0)
    configs = [{"lr": 10 ** rng.uniform(-5, -1), "width": int(rng.integers(8, 64)), "kind": str(rng.choice(["a", "b"]))} for _ in range(80)]
    rank = np.array([-abs(math.log10(config["lr"]) + 3) for config in configs])
    shares = importances(configs, rank, ["lr", "width", "kind"])
    assert next(iter(shares)) == "lr"
    assert shares["lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_too_few_runs_or_nothing_that_varied_says_nothing() -> None:
    configs = [{"lr": 0.1 * index} for index in range(15)]
    assert importances(configs, np.arange(15.0), ["lr"]) == {}
    assert importances([{"lr": 1.0}] * 30, np.arange(30.0), ["lr"]) == {}
    assert importances([{"lr": float(index)} for index in range(30)], np.zeros(30), ["lr"]) == {}


def test_the_only_hyperparameter_has_it_all() -> None:
    assert importances([{"lr": float(index)} for index in range(30)], np.arange(30.0), ["lr"]) == {"lr": 1.0}


def test_runs_without_a_value_and_runs_without_a_rank_are_left_out() -> None:
    rng = np.random.default_rng(0)
    configs: list[dict[str, float]] = [{"lr": rng.uniform(), "depth": float(rng.integers(1, 9))} for _ in range(60)]
    del configs[3]["depth"]
    rank = np.array([config["lr"] for config in configs])
    rank[:10] = np.nan
    assert importances(configs, rank, ["lr", "depth"])["lr"] > 0.8


def test_what_follows_from_another_and_free_text_are_left_out() -> None:
    configs = [{"lr": 0.1 * i, "optimizer.lr": 0.1 * i, "inverse": -i, "path": f"/runs/{i}", "other": (i * 7) % 60} for i in range(60)]
    assert [column.name for column in columns(configs, list(configs[0]))] == ["inverse", "other"]


def test_only_values_that_lie_so_are_looked_at_on_a_log_scale() -> None:
    rng = np.random.default_rng(0)
    configs = [{"lr": 10 ** rng.uniform(-5, -1), "dropout": rng.uniform(0.001, 1), "epochs": int(rng.integers(1, 9))} for _ in range(200)]
    assert {column.name: column.is_log for column in columns(configs, ["lr", "dropout", "epochs"])} == {
        "dropout": False,
        "epochs": False,
        "lr": True,
    }


def test_a_mean_is_over_the_tasks_that_vary_it() -> None:
    assert mean_importances([{"a": 0.8, "b": 0.2}, {"b": 1.0}]) == {"a": (0.8, 1), "b": (0.6, 2)}


def test_optuna_is_left_as_loud_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    importances([{"a": float(i), "b": float(i % 7)} for i in range(30)], np.arange(30.0), ["a", "b"])
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr().err == ""
