from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_callbacks import MetaHPCallback, apply
from hf_callbacks.provenance import recommendation_id
from hf_callbacks.trainer_host import set_train_batch_size
from metamodel import Decision
from store import History, InvalidArgumentError, Source


def test_a_built_trainer_is_rewritten_before_training(taught: History, make_trainer: Any) -> None:
    callback = MetaHPCallback(history=taught)
    trainer = make_trainer(callback)
    recommendation = apply(trainer, space={"learning_rate": [1e-2, 1e-5], "per_device_train_batch_size": [4]})
    assert recommendation is not None
    assert recommendation.decision is Decision.APPLY
    assert (trainer.args.learning_rate, trainer.args.per_device_train_batch_size) == (1e-2, 4)
    trainer.train()
    run = taught.run(callback.run_id or "")
    assert run.recommendation_id == recommendation.id
    assert run.steps_reached == 4, "sixteen samples in batches of four: the loader took the new batch size"
    assert run.provenance["batch_size"].observed == 4
    assert (run.provenance["learning_rate"].observed, run.provenance["learning_rate"].source) == (1e-2, Source.METAHP)


def test_the_host_still_keeps_its_batch_size_where_we_set_it(make_trainer: Any) -> None:
    trainer = make_trainer(per_device_train_batch_size=8)
    trainer.args.per_device_train_batch_size = 2
    assert len(trainer.get_train_dataloader()) == 2, "the host now reads the arguments again: set_train_batch_size may go"
    set_train_batch_size(trainer)
    assert len(trainer.get_train_dataloader()) == 8, "the host moved the batch size: set_train_batch_size sets nothing any more"
    trainer.train()
    assert trainer.state.global_step == 8


def test_an_optimizer_the_user_passed_is_left_alone(
    taught: History, make_trainer: Any, make_model: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    trainer = make_trainer(MetaHPCallback(history=taught), model=model, optimizers=(optimizer, None))
    apply(trainer)
    assert trainer.args.learning_rate == 5e-5
    assert "learning_rate stays 5e-05: the Trainer already has an optimizer" in capfd.readouterr().err


def test_it_speaks_for_the_task_and_objective_of_the_callback_beside_it(history: History, make_trainer: Any, compute_accuracy: Any) -> None:
    callback = MetaHPCallback("accuracy", task="reviews", history=history)
    trainer = make_trainer(callback, compute_metrics=compute_accuracy)
    recommendation = apply(trainer)
    assert recommendation is not None
    assert recommendation.decision is Decision.ABSTAIN
    assert recommendation_id(trainer.args) == recommendation.id
    assert history.recommendation(recommendation.id)["changes"] == []


def test_a_dry_run_writes_nothing(taught: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=taught))
    assert apply(trainer, mode="dry-run") is not None
    assert trainer.args.learning_rate == 5e-5
    assert recommendation_id(trainer.args) is None


def test_off_does_nothing(taught: History, make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP", "off")
    trainer = make_trainer()
    before = trainer.args.to_dict()
    assert apply(trainer, history=taught) is None
    assert trainer.args.to_dict() == before


def test_something_else_than_a_trainer_is_told(make_args: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"needs a built transformers.Trainer, but got TrainingArguments.*use autoconfig"):
        apply(make_args())
