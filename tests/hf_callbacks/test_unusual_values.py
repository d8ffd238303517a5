"""One unusual value costs that value: in training arguments of the user's own, and in a model's configuration."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_callbacks import MetaHPCallback, autoconfig
from store import History, MetaHPWarning, RunRecord, RunStatus
from tests.contrary import Contrary


@dataclass
class OwnArguments(TrainingArguments):
    weights: Any = field(default_factory=lambda: torch.ones(3))
    schedule: Any = field(default_factory=lambda: {"warm": [1, 2], "cool": 0.5})
    contrary: Any = field(default_factory=Contrary)
    activation: Any = torch.nn.GELU
    loss: Any = field(default_factory=lambda: partial(torch.nn.functional.cross_entropy, label_smoothing=0.0))


@pytest.fixture
def train(history: History, make_model: Any, sentences: Any) -> Any:
    def run(args: Any, model: Any = None) -> RunRecord:
        data = {"train_dataset": sentences(), "eval_dataset": sentences(8)}
        with warnings.catch_warnings():
            warnings.simplefilter("error", MetaHPWarning)
            Trainer(model or make_model(), args, callbacks=[MetaHPCallback(history=history)], **data).train()
        return max(history.runs(), key=lambda run: run.id)

    return run


def test_odd_fields_of_arguments_cost_only_themselves(train: Any, options: dict[str, Any]) -> None:
    args = OwnArguments(
        learning_rate=1e-3, weights=torch.tensor([1.0, 2.0]), lr_scheduler_type="cosine", lr_scheduler_kwargs='{"num_cycles": 1}', **options
    )
    run = train(args)
    assert run.status is RunStatus.COMPLETED
    assert run.objective_best is not None
    assert (run.hparams["learning_rate"], run.hparams["schedule"]) == (1e-3, {"warm": [1, 2], "cool": 0.5})
    assert "cross_entropy" in str(run.hparams["loss"])
    assert len(run.hparams) > 40


def test_odd_fields_of_arguments_keep_no_advice_away(pinned: Any, train: Any, options: dict[str, Any]) -> None:
    history = pinned(learning_rate=0.02)
    args = autoconfig(OwnArguments(**options), task="t", history=history, space={"learning_rate": [0.02]})
    assert args.learning_rate == 0.02
    assert isinstance(args.contrary, Contrary)
    assert train(args).hparams["learning_rate"] == 0.02


def test_odd_values_of_a_models_configuration_cost_only_themselves(train: Any, make_args: Any, make_model: Any) -> None:
    model = make_model()
    model.config.class_weights, model.config.contrary, model.config.note = torch.ones(2), Contrary(), "mine"
    run = train(make_args(), model)
    assert (run.status, run.hparams["note"], run.hparams["num_hidden_layers"]) == (RunStatus.COMPLETED, "mine", 1)


def test_a_configuration_that_cannot_be_read_costs_only_itself(train: Any, make_args: Any, make_model: Any) -> None:
    model = make_model()

    class Closed(type(model.config)):  # type: ignore[misc]
        def to_dict(self) -> Any:
            raise RuntimeError("no dictionary")

    model.config.__class__ = Closed
    run = train(make_args(learning_rate=1e-3), model)
    assert (run.status, run.hparams["learning_rate"], run.objective_best is not None) == (RunStatus.COMPLETED, 1e-3, True)
