"""``MetaHPSampler`` in real Optuna studies, and under Optuna's own test cases for samplers."""

from __future__ import annotations

import math
from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase

from metamodel import MetaHPSampler
from store import History

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestOptunasOwnCases(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self, history: History) -> Callable[[], BaseSampler]:
        return lambda: MetaHPSampler(history)


def landscape(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    layers = trial.suggest_int("num_layers", 1, 4)
    return -((math.log10(lr) + 2.5) ** 2) - 0.1 * (layers - 2) ** 2


def test_trials_become_runs_of_the_task(history: History) -> None:
    study = optuna.create_study(sampler=MetaHPSampler(history, "mine", seed=0), direction="maximize")
    study.optimize(landscape, n_trials=6)
    runs = history.runs("mine")
    assert [run.objective_best for run in runs] == pytest.approx([trial.value for trial in study.trials])
    assert [run.hparams["learning_rate"] for run in runs] == [trial.params["lr"] for trial in study.trials]
    assert {(run.objective, run.direction, run.status) for run in runs} == {("value", "max", "completed")}


def test_a_study_gets_better_than_chance(history: History) -> None:
    ours = optuna.create_study(sampler=MetaHPSampler(history, "mine", seed=0), direction="maximize")
    ours.optimize(landscape, n_trials=25)
    chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    chance.optimize(landscape, n_trials=25)
    later = sorted(trial.value or 0.0 for trial in ours.trials[10:])
    assert ours.best_value >= chance.best_value
    assert later[len(later) // 2] > sorted(trial.value or 0.0 for trial in chance.trials[10:])[7]


def test_the_first_trial_of_a_new_task_is_advised_by_the_tasks_before(history: History) -> None:
    for task in ("a", "b", "c"):
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1), direction="maximize")
        study = optuna.create_study(sampler=MetaHPSampler(history, task, seed=1), direction="maximize")
        study.optimize(landscape, n_trials=12)
    fresh = optuna.create_study(sampler=MetaHPSampler(history, "new", seed=5), direction="maximize")
    fresh.optimize(landscape, n_trials=1)
    assert abs(math.log10(fresh.trials[0].params["lr"]) + 2.5) < 1.0


def test_one_task_before_guides_the_first_trials(history: History) -> None:
    optuna.create_study(sampler=MetaHPSampler(history, "a", seed=1), direction="maximize").optimize(landscape, n_trials=25)
    guided = optuna.create_study(sampler=MetaHPSampler(history, "new", seed=5), direction="maximize")
    guided.optimize(landscape, n_trials=3)
    distances = [abs(math.log10(trial.params["lr"]) + 2.5) for trial in guided.trials]
    assert distances[0] < 0.5
    assert distances[2] < 0.5  # the second one looks whether this task is another


def test_failed_and_nan_trials_are_recorded_as_diverged_and_pruned_ones_as_stopped(history: History) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        if trial.number == 0:
            return math.nan
        if trial.number == 1:
            raise ValueError("broken")
        trial.report(0.5, step=0)
        raise optuna.TrialPruned

    study = optuna.create_study(sampler=MetaHPSampler(history, "mine", seed=0))
    study.optimize(objective, n_trials=3, catch=ValueError)
    assert [run.status for run in history.runs("mine")] == ["diverged", "diverged", "stopped"]
    assert history.runs("mine")[2].objective_best == 0.5


def test_the_same_seed_suggests_the_same(tmp_path: object) -> None:
    found = []
    for name in ("one", "two"):
        with History(f"{tmp_path}/{name}.db") as history:
            study = optuna.create_study(sampler=MetaHPSampler(history, "t", seed=3), direction="minimize")
            study.optimize(lambda trial: -landscape(trial), n_trials=7)
            found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]


def test_a_study_of_a_known_task_uses_its_objective(history: History) -> None:
    with history.start_run(task="mine", hparams={"lr": 1e-3}, objective="val_acc") as run:
        run.log(val_acc=0.5)
    study = optuna.create_study(sampler=MetaHPSampler(history, "mine", seed=0), direction="maximize")
    study.optimize(landscape, n_trials=1)
    assert {run.objective for run in history.runs("mine")} == {"val_acc"}


def test_several_objectives_are_refused_with_one_sentence(history: History) -> None:
    study = optuna.create_study(sampler=MetaHPSampler(history), directions=["minimize", "maximize"])
    with pytest.raises(ValueError, match="needs a study with one objective, but got one with 2"):
        study.ask().suggest_float("x", 0, 1)
