"""``trainer.hyperparameter_search``: logged as runs of the task, nothing rewritten; our sampler inside it."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from hf_callbacks import MetaHPCallback, apply
from metamodel import MetaHPSampler, TaskDescription
from store import History, RunStatus, Source

optuna.logging.set_verbosity(optuna.logging.ERROR)


def space(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True), "per_device_train_batch_size": 4}


def test_a_search_is_left_alone_also_where_a_recommendation_was_applied(taught: History, make_trainer: Any, make_model: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=taught), model_init=lambda: make_model())
    assert apply(trainer, space={"weight_decay": [0.0, 0.1], "learning_rate": [1e-2], "hidden_dropout_prob": [0.1]}) is not None
    best = trainer.hyperparameter_search(hp_space=space, backend="optuna", n_trials=2, direction="minimize")
    runs = [run for run in taught.runs() if run.framework == "transformers"]
    assert len(runs) == 2
    assert best.hyperparameters["learning_rate"] in [pytest.approx(run.hparams["learning_rate"]) for run in runs]
    assert {run.recommendation_id for run in runs} == {None}
    assert {run.provenance["learning_rate"].source for run in runs} == {Source.USER}
    assert {run.hparams["batch_size"] for run in runs} == {4}
    assert len({run.task_id for run in runs}) == 1


def test_our_sampler_suggests_and_each_trial_is_one_run(history: History, make_trainer: Any, make_model: Any) -> None:
    task = TaskDescription(name="reviews", objective="eval_loss", direction="min")
    for rate in (1e-4, 3e-4, 1e-3, 3e-3, 9e-3, 9.5e-3):
        with history.start_run(task=task, hparams={"learning_rate": rate}, objective="eval_loss") as run:
            run.log({"eval_loss": 0.5 - 10 * rate}, step=1, epoch=1.0)
    trainer = make_trainer(MetaHPCallback(task="reviews", history=history), model_init=lambda: make_model())
    trainer.hyperparameter_search(
        hp_space=space, backend="optuna", n_trials=2, direction="minimize", sampler=MetaHPSampler(history, task="reviews", seed=0)
    )
    logged = [run for run in history.runs() if run.status is RunStatus.COMPLETED and run.framework != "python"]
    assert [run.framework for run in logged] == ["transformers", "transformers"], "the sampler must not record a trial a second time"
    assert {run.task_name for run in logged} == {"reviews"}
