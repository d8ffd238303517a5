"""The learning rate that a user turns is recorded, advised and applied, whatever the optimizer's groups make of it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from transformers import Trainer

from hf_callbacks import MetaHPCallback, autoconfig
from store import History, NotAppliedWarning, RunRecord, Source

RATE = 0.02


def layer_wise(model: Any, rate: float, decay: float = 0.9) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [{"params": [parameter], "lr": rate * decay ** (len(parameters) - i)} for i, parameter in enumerate(parameters)]


def with_head(model: Any, rate: float) -> list[dict[str, Any]]:
    return [{"params": model.bert.parameters(), "lr": rate}, {"params": model.classifier.parameters(), "lr": 10 * rate}]


class LayerWise(Trainer):
    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        self.optimizer = torch.optim.AdamW(layer_wise(self.model, self.args.learning_rate))
        return self.optimizer


class Hard(Trainer):
    """Groups whose rates are written down, so that the arguments' one is of no account."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        groups = [{"params": self.model.bert.parameters(), "lr": 1e-5}, {"params": self.model.classifier.parameters(), "lr": 1e-3}]
        self.optimizer = torch.optim.AdamW(groups)
        return self.optimizer


@pytest.fixture
def train(history: History, make_args: Any, make_model: Any, sentences: Any) -> Any:
    def run(cls: type[Trainer] = Trainer, args: Any = None, *, warns: bool = False, model: Any = None, **inputs: Any) -> RunRecord:
        data = {"train_dataset": sentences(), "eval_dataset": sentences(8)}
        trainer = cls(model or make_model(), args or make_args(), callbacks=[MetaHPCallback(history=history)], **data, **inputs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train()
        told = [str(item.message) for item in caught if issubclass(item.category, NotAppliedWarning)]
        assert bool(told) is warns, told
        return max(history.runs(), key=lambda run: run.id)

    return run


def test_layer_wise_decay_follows_from_the_setting(train: Any, make_args: Any) -> None:
    run = train(LayerWise, make_args(learning_rate=1e-3))
    rate = run.provenance["learning_rate"]
    assert (run.hparams["learning_rate"], rate.source, rate.observed) == (1e-3, Source.USER, 1e-3)
    assert run.hparams["optimizer.lr"] != 1e-3, "the groups' values stand beside it"


@pytest.mark.parametrize("groups", [with_head, layer_wise])
def test_groups_that_follow_from_a_recommended_rate_are_no_failure(
    pinned: Any, train: Any, make_args: Any, make_model: Any, groups: Any
) -> None:
    history = pinned(learning_rate=RATE)
    args = autoconfig(make_args(), task="t", history=history, space={"learning_rate": [RATE]})
    model = make_model()
    run = train(args=args, model=model, optimizers=(torch.optim.AdamW(groups(model, args.learning_rate)), None))
    rate = run.provenance["learning_rate"]
    assert (run.hparams["learning_rate"], rate.source, rate.requested, rate.observed) == (RATE, Source.METAHP, 5e-5, RATE)


def test_a_rate_written_down_in_the_optimizer_is_what_was_used(train: Any, make_model: Any) -> None:
    model = make_model()
    run = train(model=model, optimizers=(torch.optim.AdamW(model.parameters(), lr=3e-3), None))
    assert (run.hparams["learning_rate"], run.provenance["learning_rate"].requested) == (3e-3, 5e-5)
    given = train(optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.25}))
    assert (given.hparams["learning_rate"], given.hparams["optimizer"]) == (0.25, "SGD")


def test_a_rate_that_is_not_in_force_is_told_once_and_not_advised_again(
    taught: History, train: Any, make_args: Any, make_model: Any, sentences: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {"model": make_model(), "train_dataset": sentences(), "history": taught}
    args = autoconfig(make_args(), **given)
    assert args.learning_rate > 1e-3
    run = train(Hard, args, warns=True)
    assert run.hparams["learning_rate"] == 1e-5
    assert autoconfig(make_args(), **given).learning_rate == 5e-5
    assert "and 1e-05 was in force; it is advised again once" in capfd.readouterr().err
    train(Trainer, make_args(learning_rate=2e-3))  # the script was mended
    assert autoconfig(make_args(), **given).learning_rate > 1e-3


def test_galore_like_groups_keep_the_setting(train: Any, make_model: Any, make_args: Any) -> None:
    model = make_model()
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() != 2]
    groups = [{"params": others}, {"params": matrices, "rank": 4, "scale": 0.25}]
    run = train(args=make_args(learning_rate=1e-3), model=model, optimizers=(torch.optim.AdamW(groups, lr=1e-3), None))
    assert (run.hparams["learning_rate"], run.hparams["optimizer.1.rank"]) == (1e-3, 4)
