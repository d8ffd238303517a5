"""Runs that differ in a seed only are draws of one configuration."""

from __future__ import annotations

from typing import Any

import pytest

from store import History
from store.hyperparameters import is_output_place, is_seed_name
from store.repeats import best_configuration, best_of_task, configuration_key, describe_draws, pooled, without_repetitions


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


def record_run(history: History, lr: float, seed: int | None, outcome: float | str, direction: str = "max", **options: Any) -> None:
    hparams = {"lr": lr} if seed is None else {"lr": lr, "seed": seed}
    with history.start_run(task="t", hparams=hparams, objective=options.pop("objective", "score"), direction=direction, **options) as run:
        if isinstance(outcome, str):
            run.finish(outcome)
        else:
            run.log({str(run.objective): outcome})


def record(history: History, outcomes: dict[tuple[float, int], float | str], direction: str = "max") -> None:
    for (lr, seed), outcome in outcomes.items():
        record_run(history, lr, seed, outcome, direction)


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


@pytest.mark.parametrize(
    ("seeds", "outcomes", "shown"),
    [
        ((1, 1), (0.81, 0.81), "0.81 (the same run twice)"),
        ((1, 1, 1), (0.81, 0.81, 0.81), "0.81 (the same run 3 times)"),
        ((1, 1), (0.3, 0.3 + 1e-8), "0.3 (the same run twice)"),
        ((1, 1), (0.8, 0.9), "0.85 ± 0.071 (2 draws)"),
        ((1, 1, 2), (0.9, 0.9, 0.7), "0.8 ± 0.14 (2 draws in 3 runs)"),
        ((1, 2), (0.81, 0.81), "0.81 ± 0 (2 draws)"),
        ((None, None), (0.81, 0.81), "0.81 (2 runs, all equal)"),
        ((None, None, None), (0.9, 0.9, 0.6), "0.8 ± 0.17 (3 draws)"),
        ((1, 2, 2), (0.9, "diverged", "diverged"), "0.9 (2 draws in 3 runs, 1 failed)"),
    ],
)
def test_the_same_run_again_is_no_draw(history: History, seeds: Any, outcomes: Any, shown: str) -> None:
    for seed, outcome in zip(seeds, outcomes, strict=True):
        record_run(history, 0.1, seed, outcome)
    (found,) = pooled(history.runs())
    assert describe_draws(found) == shown
    assert len(found.runs) == len(seeds)


def test_another_length_or_another_configuration_is_no_repetition(history: History) -> None:
    for lr, epochs in ((0.1, 1), (0.1, 2), (0.2, 2), (0.2, 2)):
        with history.start_run(task="t", hparams={"lr": lr, "seed": 1}, objective="score", direction="max") as run:
            run.log(score=0.5)
            run.update(epochs_reached=epochs)
    runs = history.runs()
    assert without_repetitions(runs) == runs[:3]


def described(validation: str | None) -> dict[str, Any]:
    return {"description": {"comparability": {} if validation is None else {"validation": validation}}}


def test_the_best_is_that_of_the_largest_group_that_means_one_thing_by_the_objective(history: History) -> None:
    for lr, validation, outcome in ((0.1, None, 0.5), (0.2, None, 0.6), (0.3, "2 batches", 0.99)):
        record_run(history, lr, 1, outcome, **described(validation))
    found = best_of_task(history.runs(), "score", "max")
    assert found is not None
    assert (found.best_run.objective_best, found.definition, found.n_runs, found.n_others) == (0.6, "", 2, 1)
    record_run(history, 0.4, 1, 0.98, **described("2 batches"))
    found = best_of_task(history.runs(), "score", "max")
    assert found is not None, "of two equal groups the newest counts"
    assert (found.best_run.objective_best, found.definition) == (0.99, "validation=2 batches")
    assert len(pooled(history.runs())) == 4
    record_run(history, 0.1, 2, 0.7, **described("2 batches"))
    assert len(pooled(history.runs())) == 5, "no draw of what was measured otherwise"


def test_spellings_of_one_metric_are_one_objective(history: History) -> None:
    record_run(history, 0.1, 1, 0.5, "min", objective="val_loss_epoch")
    record_run(history, 0.1, 2, 0.4, "min", objective="val_loss")
    (found,) = pooled(history.runs())
    assert len(found) == 2
    best = best_of_task(history.runs(), "val_loss", "min")
    assert best is not None
    assert best.n_runs == 2
