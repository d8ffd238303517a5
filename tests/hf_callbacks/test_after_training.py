"""What ``evaluate()`` and ``predict()`` find after training belongs to the run that was trained."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from transformers import Trainer

from hf_callbacks import MetaHPCallback
from hf_callbacks.evaluation_watch import AFTER
from store import History, ObjectiveWarning, RunStatus


def test_the_first_evaluation_after_training_is_the_outcome(history: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history), eval_strategy="no")
    with pytest.warns(ObjectiveWarning, match=r"'eval_loss' is known only if trainer\.evaluate\(\) follows the training"):
        trainer.train()
    assert history.runs()[0].objective is None
    said = trainer.evaluate()
    (run,) = history.runs()
    assert (run.objective, run.direction, run.status) == ("eval_loss", "min", RunStatus.COMPLETED)
    assert (run.objective_best, run.objective_best_step) == (pytest.approx(said["eval_loss"]), 2)


def test_with_or_without_validation_it_is_the_same_task(history: History, make_trainer: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        for strategy in ("no", "epoch"):
            make_trainer(MetaHPCallback(history=history), eval_strategy=strategy).train()
    first, second = history.runs()
    assert first.task_id == second.task_id


def test_an_evaluation_after_a_validated_training_overwrites_nothing(history: History, make_trainer: Any, sentences: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    trainer.train()
    before = history.runs()[0]
    trainer.evaluate()
    trainer.predict(sentences(4))
    (after,) = history.runs()
    assert (after.objective_best, after.objective_last, after.ended_utc) == (before.objective_best, before.objective_last, before.ended_utc)
    names = history.metric_names(after.id)
    assert {AFTER + "eval_loss", "test_loss"} <= set(names)
    assert len(history.metrics(after.id, "eval_loss")) == 1


def test_another_trainer_adds_nothing(history: History, make_trainer: Any) -> None:
    callback = MetaHPCallback(history=history)
    make_trainer(callback).train()
    make_trainer(callback).evaluate()
    assert AFTER + "eval_loss" not in history.metric_names()


class ByExamples(Trainer):
    """Evaluates by itself, without a loss, as the question answering example of transformers does."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = {"eval_exact_match": 40.0, "eval_f1": 55.0}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def test_an_evaluation_after_training_that_lacks_the_objective_names_what_works(
    history: History, make_args: Any, make_model: Any, sentences: Any
) -> None:
    trainer = ByExamples(
        make_model(), make_args(eval_strategy="no"), train_dataset=sentences(), callbacks=[MetaHPCallback(history=history)]
    )
    trainer.train()
    with pytest.warns(ObjectiveWarning, match="'eval_loss' was not among those of the first one; these were: eval_f1"):
        trainer.evaluate()
