from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from hf_callbacks import MetaHPCallback, apply, autoconfig
from hf_callbacks.space_checks import check_values
from store import History, SpaceError, UnknownHyperparameterError


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr_scheduler_type": ["linear", "cosin"]}, r"one the host knows, but got 'cosin'; nearest are 'cosine'"),
        ({"lr_scheduler": CategoricalDistribution(["xyzzy"])}, "but got 'xyzzy'; possible are linear, "),
        ({"optim": ["adamw_torhc"]}, "but got 'adamw_torhc'; nearest are 'adamw_torch'"),
        ({"learning_rate": [1e-3, -1.0]}, "A value of learning_rate must be a number from 0 on, but got -1.0. Take it out of the space."),
        ({"lr": FloatDistribution(-1e-3, 1e-3)}, "A value of lr must be a number from 0 on, but got -0.001"),
        ({"weight_decay": ["0.1"]}, "must be a number from 0 on, but got '0.1'"),
        ({"weight_decay": [True]}, "must be a number from 0 on, but got True"),
        ({"per_device_train_batch_size": [0, 8]}, "must be a whole number from 1 on, but got 0"),
        ({"batch_size": [2.5]}, "must be a whole number from 1 on, but got 2.5"),
        ({"gradient_accumulation_steps": IntDistribution(0, 4)}, "must be a whole number from 1 on, but got 0"),
        ({"global_batch_size": [-8]}, "must be a whole number from 1 on, but got -8"),
        ({"adam_beta2": [1.0]}, "must be a number from 0 to below 1, but got 1.0"),
        ({"warmup_ratio": [0.1, 1.5]}, "must be a number from 0 to 1, but got 1.5"),
    ],
)
def test_a_value_the_field_cannot_have_is_told(make_args: Any, history: History, space: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        autoconfig(make_args(), history=history, space=space)


def test_a_value_of_the_model_is_checked_as_well(make_trainer: Any, history: History) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    with pytest.raises(SpaceError, match=r"A value of hidden_dropout_prob must be a number from 0 to 1, but got 1\.5"):
        apply(trainer, space={"hidden_dropout_prob": [0.1, 1.5]})


def test_every_value_the_host_takes_is_taken(make_args: Any) -> None:
    args = make_args()
    check_values(
        {
            "lr_scheduler_type": [item.value for item in type(args.lr_scheduler_type)],
            "optim": list(type(args.optim)),
            "learning_rate": FloatDistribution(1e-6, 1.0, log=True),
            "per_device_train_batch_size": FloatDistribution(1, 64),
            "gradient_accumulation_steps": [1, 2.0],
            "max_grad_norm": [0, 1.0],
            "num_train_epochs": [0.5, 3],
            "warmup_steps": [0, 100],
            "label_smoothing_factor": [0.0, 0.1],
            "bf16": [True, False],
            "max_steps": [-1, 100],
        },
        args,
    )


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ({"learning_rates": 1e-3}, "a field of TrainingArguments, but got 'learning_rates'; nearest are 'learning_rate'"),
        ({"train_data": []}, "nearest are .*'train_dataset'"),
        ({"xyzzy": 1}, "but got 'xyzzy'; leave it out"),
        ({"predict_with_generate": True}, "a field of TrainingArguments, but got 'predict_with_generate'"),
    ],
)
def test_a_keyword_that_is_no_field_is_answered_with_the_nearest(
    options: dict[str, Any], make_args: Any, history: History, keyword: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownHyperparameterError, match=message):
        autoconfig(history=history, **options, **keyword)
    with pytest.raises(UnknownHyperparameterError, match=message):
        autoconfig(make_args(), history=history, **keyword)


def test_a_class_that_takes_any_keyword_gets_it(options: dict[str, Any], history: History) -> None:
    class Loose(TrainingArguments):
        def __init__(self, *, rank: int = 4, **others: Any) -> None:
            self.rank = rank
            super().__init__(**others)

    found = autoconfig(history=history, args_class=Loose, rank=8, learning_rate=0.5, **options)
    assert (found.rank, found.learning_rate) == (8, 0.5)


def test_a_field_of_a_subclass_is_a_keyword(options: dict[str, Any], history: History) -> None:
    found = autoconfig(history=history, args_class=Seq2SeqTrainingArguments, predict_with_generate=True, **options)
    assert found.predict_with_generate
