"""Optimizers that a module is given, parameter groups that follow a setting, and values that cannot be compared."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lightning_metahp import MetaHParams, MetaHPCallback
from store import History
from store.errors import NotAppliedWarning
from store.statuses import Source
from tests.contrary import Contrary
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit

DEFAULT = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.5)


class Given(TinyModel):
    """Its optimizer is made of what it was given."""

    def __init__(self, optimizer: Any = DEFAULT) -> None:
        super().__init__()
        for kept in (self.hparams, self._hparams_initial):
            kept.clear()
        self.save_hyperparameters()
        self.make = optimizer

    def configure_optimizers(self) -> Any:
        made = self.hparams.optimizer
        if isinstance(made, dict):
            return torch.optim.SGD(self.parameters(), **made.get("init_args", {k: v for k, v in made.items() if k[0] != "_"}))
        return made(self.parameters())


class Kept(Given):
    """Its optimizer is made of an attribute."""

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters())


GIVEN = {
    "partial": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.5),
    "class_path": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.5}},
    "_target_": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.01, "momentum": 0.5},
}


@pytest.mark.parametrize("optimizer", GIVEN.values(), ids=GIVEN)
def test_the_rate_inside_is_tuned_recorded_and_taken_back(
    optimizer: Any, history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(history, monkeypatch, lr=0.3, momentum=0.9)
    model = Given(optimizer)
    callbacks = MetaHPCallback("val_acc", history=history), MetaHParams({"lr": [0.01, 0.3], "momentum": [0.5, 0.9]}, history=history)
    trainer = fit(*callbacks, model=model)
    group = trainer.optimizers[0].param_groups[0]
    assert (group["lr"], group["momentum"]) == (0.3, 0.9)
    assert "lr 0.01 -> 0.3, momentum 0.5 -> 0.9" in capsys.readouterr().err
    found = newest(history).provenance
    assert [(p.value, p.requested, p.observed, p.source) for p in (found["learning_rate"], found["momentum"])] == [
        (0.3, 0.01, 0.3, Source.METAHP),
        (0.9, 0.5, 0.9, Source.METAHP),
    ]
    assert found["optimizer"].value == "SGD"
    monkeypatch.delenv("METAHP_PIN")
    fit(MetaHPCallback("val_acc", history=history), MetaHParams(history=history, keep=("lr",)), model=model)
    assert newest(history).hparams["learning_rate"] == 0.01


def test_a_default_partial_is_a_default_and_stays_as_it_is_for_the_next_model(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, lr=0.3)
    assert fit(MetaHParams(objective="val_acc", history=history), model=Kept()).optimizers[0].param_groups[0]["lr"] == 0.3
    assert newest(history).provenance["learning_rate"].source is Source.METAHP
    assert Kept().make.keywords == {"lr": 0.01, "momentum": 0.5}


def test_a_partial_given_by_the_user_is_set_by_them(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(history, monkeypatch, lr=0.3)
    fit(MetaHParams(objective="val_acc", history=history), model=Given(functools.partial(torch.optim.Adam, lr=0.02)))
    assert "lr stays 0.02: set by you" in capsys.readouterr().err
    found = newest(history).hparams
    assert (found["learning_rate"], found["optimizer"]) == (0.02, "Adam")


def test_a_function_that_hides_the_rate_is_answered_with_the_way_that_works(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    model = Kept(lambda params: torch.optim.SGD(params, lr=0.05))
    fit(MetaHPCallback("val_acc", history=history), MetaHParams(history=history), model=model)
    assert "functools.partial(torch.optim.SGD, lr=...)" in capsys.readouterr().err
    found = newest(history).hparams
    assert (found["learning_rate"], found["optimizer"]) == (0.05, "SGD")


class Groups(TinyModel):
    """Its parameter groups have rates made of the hyperparameter, or not."""

    def __init__(self, rates: Callable[[float], list[float]], lr: float = 0.01) -> None:
        super().__init__(lr=lr)
        self.rates = rates

    def configure_optimizers(self) -> Any:
        layers = [layer for layer in self.net if list(layer.parameters())]
        return torch.optim.SGD(
            [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, self.rates(self.hparams.lr), strict=True)]
        )


FOLLOWING = {
    "layer-wise decay": lambda lr: [lr * 0.81, lr * 0.9],
    "a head at ten times the rate": lambda lr: [lr, lr * 10],
    "all at ten times the rate": lambda lr: [lr * 10, lr * 10],
}


@pytest.mark.parametrize("rates", FOLLOWING.values(), ids=FOLLOWING)
def test_groups_that_follow_the_setting_leave_it_as_it_is(rates: Any, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(MetaHPCallback("val_acc", history=history), model=Groups(rates))
    plain = newest(history)
    assert plain.hparams["learning_rate"] == plain.provenance["learning_rate"].observed == 0.01
    groups = [plain.hparams["optimizer.lr"], plain.hparams.get("optimizer.1.lr", plain.hparams["optimizer.lr"])]
    assert groups == rates(0.01)
    pin(history, monkeypatch, lr=0.0317)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotAppliedWarning)
        fit(MetaHParams({"lr": [0.01, 0.0317]}, objective="val_acc", history=history), model=Groups(rates))
    tuned = newest(history)
    assert tuned.hparams["learning_rate"] == tuned.provenance["learning_rate"].observed == 0.0317
    assert tuned.hparams["optimizer.lr"] == rates(0.0317)[0]


def test_a_setting_that_no_group_follows_is_warned_of_and_recorded_as_observed_and_advised_no_more(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(history, monkeypatch, lr=0.0317)
    with pytest.warns(NotAppliedWarning, match="lr is 0.2 in SGD instead of 0.0317"):
        fit(MetaHParams({"lr": [0.01, 0.0317]}, objective="val_acc", history=history), model=Groups(lambda lr: [0.2, 0.3]))
    found = newest(history).provenance["learning_rate"]
    assert (found.value, found.observed, found.requested) == (0.2, 0.2, 0.01)
    capsys.readouterr()
    monkeypatch.delenv("METAHP_PIN")
    fit(MetaHParams({"lr": [0.01, 0.0317]}, objective="val_acc", history=history), model=Groups(lambda lr: [0.2, 0.3]))
    assert "lr stays 0.01: in run" in (said := capsys.readouterr().err)
    assert "0.0317 was written and 0.2 was in force" in said


def _omegaconf() -> Any:
    return pytest.importorskip("omegaconf").OmegaConf.create({"gone": "???", "wrong": "${nowhere}", "fine": 1})


ODD: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.tensor([1.0, 2.0]),
    "array": lambda: np.ones(3),
    "object": Contrary,
    "list": lambda: [Contrary(), torch.ones(2)],
    "omegaconf": _omegaconf,
}


class OddData(TinyData):
    def __init__(self, odd: Any, classes: Any = None, lora: Any = None, optimizer: Any = None, batch_size: int = 16) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters(logger=False)


class OddModel(TinyModel):
    def __init__(self, odd: Any, lora: Any = None, optimizer: Any = None, dropout: Any = None, seed: Any = None, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.save_hyperparameters(logger=False)


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_a_value_that_cannot_be_compared_costs_neither_the_reading_nor_the_advice(
    make: Callable[[], Any], history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = make()
    monkeypatch.setenv("METAHP_STARTER", "1")
    model = OddModel(odd, lora=odd, optimizer=odd, dropout=odd, seed=odd)
    fit(MetaHPCallback("val_acc", history=history), MetaHParams(history=history), model=model, data=OddData(odd, odd, odd, odd))
    said = capsys.readouterr().err
    assert "failed with" not in said
    assert "nothing changed" in said or "->" in said
    found = newest(history)
    assert {"learning_rate", "per_device_batch_size", "num_epochs", "optimizer.lr"} <= found.hparams.keys()
    assert {"odd", "lora"} <= {name.partition(".")[0] for name in found.hparams}


def test_a_configuration_with_missing_entries_is_recorded_entry_by_entry(history: History) -> None:
    config = pytest.importorskip("omegaconf").OmegaConf.create({"width": 8, "gone": "???", "wrong": "${nowhere}"})
    fit(MetaHPCallback("val_acc", history=history), MetaHParams(history=history), model=OddModel(config))
    found = newest(history).hparams
    assert (found["width"], str(found["odd.gone"]), str(found["odd.wrong"])) == (
        *(8, "unreadable: MissingMandatoryValue"),
        "unreadable: InterpolationKeyError",
    )
