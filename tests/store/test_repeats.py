"""Runs that differ in a seed only are draws of one configuration."""

from __future__ import annotations

import pytest

from store import History
from store.hyperparameters import is_output_place, is_seed_name
from store.repeats import best_configuration, configuration_key, pooled


@pytest.mark.parametrize(
    "name", ["seed", "random_state", "random_seed", "data_seed", "bagging_seed", "seed_everything", "clf__random_state", "rng", "Seed"]
)
def test_a_seed_is_known_under_its_many_names(name: str) -> None:
    assert is_seed_name(name)


@pytest.mark.parametrize("name", ["n_seeds", "seedling", "learning_rate", "random_state_dim", "speed", "use_seed_data"])
def test_what_sounds_like_a_seed_is_none(name: str) -> None:
    assert not is_seed_name(name)


@pytest.mark.parametrize("name", ["output_dir", "run_name", "logging_dir", "experiment_name"])
def test_places_and_names_of_runs_tell_no_configurations_apart(name: str) -> None:
    assert is_output_place(name)


def test_a_place_of_data_tells_configurations_apart() -> None:
    assert configuration_key({"lr": 0.1, "data_dir": "a"}) != configuration_key({"lr": 0.1, "data_dir": "b"})
    assert configuration_key({"lr": 0.1, "seed": 1, "output_dir": "a"}) == configuration_key({"output_dir": "b", "seed": 2, "lr": 0.1})
    assert configuration_key({"betas": [0.9, 0.99]}) == configuration_key({"betas": [0.9, 0.99]})
    assert configuration_key({"seed": 1}) is None


def record(history: History, outcomes: dict[tuple[float, int], float | str], direction: str = "max") -> None:
    for (lr, seed), outcome in outcomes.items():
        with history.start_run(task="t", hparams={"lr": lr, "seed": seed}, objective="score", direction=direction) as run:
            if isinstance(outcome, str):
                run.finish(outcome)
            else:
                run.log(score=outcome)


def test_a_lucky_draw_is_no_best_configuration(history: History) -> None:
    record(history, {(0.1, 0): 0.9, (0.1, 1): 0.5, (0.1, 2): 0.4, (0.01, 0): 0.8, (0.01, 1): 0.82})
    found = best_configuration(pooled(history.runs()))
    assert found is not None
    assert found.mean == pytest.approx(0.81)
    assert found.spread == pytest.approx(0.01414, abs=1e-4)
    assert len(found) == 2
    assert found.best_run().hparams["seed"] == 1


def test_the_smallest_mean_is_best_where_small_is_good(history: History) -> None:
    record(history, {(0.1, 0): 0.1, (0.1, 1): 0.9, (0.01, 0): 0.3, (0.01, 1): 0.35}, "min")
    found = best_configuration(pooled(history.runs()))
    assert found is not None
    assert found.mean == pytest.approx(0.325)


def test_a_draw_that_failed_counts_and_has_no_outcome(history: History) -> None:
    record(history, {(0.1, 0): 0.9, (0.1, 1): "diverged", (0.1, 2): "oom"})
    (found,) = pooled(history.runs())
    assert (len(found), found.n_failed, found.mean, found.spread) == (3, 2, 0.9, None)


def test_runs_of_other_tasks_and_of_unknown_hyperparameters_are_no_draws(history: History) -> None:
    for task in ("a", "a", "b"):
        with history.start_run(task=task, hparams={"lr": 0.1}, objective="val_acc") as run:
            run.log(val_acc=0.5)
    for _ in range(2):
        with history.start_run(task="a", objective="val_acc") as run:
            run.log(val_acc=0.5)
    assert sorted(map(len, pooled(history.runs()))) == [1, 1, 1, 2]
