"""Hyperparameters that hold others by name: recorded value by value, and those for the optimizer tuned."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lightning_metahp import MetaHParams, MetaHPCallback
from lightning_metahp.nested_values import MAX_LEAVES, leaves, with_leaf
from store import History, Source
from store.errors import UnknownHyperparameterError
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit


@dataclass
class OptimizerPart:
    lr: float = 1e-3
    wd: float = 0.01


@dataclass
class Config:
    optim: OptimizerPart = field(default_factory=OptimizerPart)
    layers: int = 2
    note: str = "first"


VALUES = {"optim": {"lr": 1e-3, "wd": 0.01}, "layers": 2, "note": "first"}


def _read_only() -> Any:
    config = OmegaConf.create(VALUES)
    OmegaConf.set_readonly(config, True)
    return config


def _namespace() -> argparse.Namespace:
    return argparse.Namespace(optim=argparse.Namespace(lr=1e-3, wd=0.01), layers=2, note="first")


KINDS: Mapping[str, Callable[[], Any]] = {
    "dictionary": lambda: copy.deepcopy(VALUES),
    "omegaconf": _read_only,
    "namespace": _namespace,
    "dataclass": Config,
}


class ConfiguredModel(TinyModel):
    """As hydra's templates write it: one configuration for everything."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        for kept in (self.hparams, self._hparams_initial):
            kept.clear()
        self.save_hyperparameters(logger=False)
        self.cfg = cfg

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optim = self.cfg["optim"] if isinstance(self.cfg, dict) else self.cfg.optim
        values = optim if isinstance(optim, Mapping) else vars(optim)
        return torch.optim.Adam(self.parameters(), lr=values["lr"], weight_decay=values["wd"])


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_what_a_configuration_holds_is_recorded_value_by_value(make: Callable[[], Any], history: History) -> None:
    fit(MetaHPCallback("val_acc", history=history), model=ConfiguredModel(make()))
    run = newest(history)
    assert (run.hparams["learning_rate"], run.hparams["weight_decay"], run.hparams["num_layers"]) == (1e-3, 0.01, 2)
    assert run.hparams["cfg.note"] == "first"
    assert "cfg" not in run.hparams
    assert run.provenance["learning_rate"].raw_name == "lr"


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_rate_inside_of_it_is_tuned_and_the_users_object_stays_as_it_is(
    make: Callable[[], Any], history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(history, monkeypatch, lr=0.03)
    given_config, model = make(), ConfiguredModel(make())
    model.cfg = given_config
    trainer = fit(
        MetaHParams({"lr": [1e-3, 0.03]}, objective="val_acc", history=history), MetaHPCallback("val_acc", history=history), model=model
    )
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.03
    assert leaves(given_config) == leaves(make())
    run = newest(history)
    assert (run.hparams["learning_rate"], run.provenance["learning_rate"].source) == (0.03, Source.METAHP)
    assert run.hparams["weight_decay"] == 0.01


def test_what_else_it_holds_is_refused_with_the_way_that_works(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    model = ConfiguredModel({"optim": {"lr": 1e-3, "wd": 0.0}, "dropout": 0.1})
    fit(MetaHParams({"dropout": [0.1, 0.3]}, objective="val_acc", history=history), model=model)
    assert "make dropout an argument of its own" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cfg", "optim", "optim.lr"])
def test_a_part_that_is_no_value_cannot_be_named_and_the_error_lists_what_can(name: str, history: History) -> None:
    with pytest.raises(UnknownHyperparameterError, match=r"it has: .*layers, lr"):
        fit(MetaHParams({name: [0.1, 0.2]}, objective="val_acc", history=history), model=ConfiguredModel(copy.deepcopy(VALUES)))


def test_another_rate_inside_of_a_configuration_is_the_same_task(history: History) -> None:
    for lr in (1e-3, 1e-2):
        config = {"optim": {"lr": lr, "wd": 0.0}, "data": {"name": "first"}}
        fit(MetaHPCallback("val_acc", history=history), model=ConfiguredModel(config))
    other = {"optim": {"lr": 1e-3, "wd": 0.0}, "data": {"name": "second"}}
    fit(MetaHPCallback("val_acc", history=history), model=ConfiguredModel(other))
    assert sorted(task.n_runs for task in history.tasks()) == [1, 2]


def test_two_values_of_one_meaning_are_called_by_their_paths() -> None:
    class Gan(ConfiguredModel):
        pass

    from lightning_metahp.settings import own_settings

    found = own_settings(Gan({"generator": {"lr": 1e-3}, "critic": {"lr": 1e-2}, "optim": {"wd": 0.0}}), None)
    assert {"cfg.generator.lr", "cfg.critic.lr", "wd"} <= found.keys()
    assert "lr" not in found


def test_a_part_called_optimizer_never_hides_what_the_optimizer_has(history: History) -> None:
    class Stubborn(TinyModel):
        def __init__(self, optimizer: Any, critic: Any) -> None:
            super().__init__()
            for kept in (self.hparams, self._hparams_initial):
                kept.clear()
            self.save_hyperparameters(logger=False)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.03)

    fit(MetaHPCallback("val_acc", history=history), model=Stubborn({"lr": 0.5}, {"lr": 0.4}))
    run = newest(history)
    assert (run.hparams["learning_rate"], run.hparams["optimizer.lr"]) == (0.03, 0.03)
    assert (run.hparams["hparams.optimizer.lr"], run.hparams["critic.lr"]) == (0.5, 0.4)


def test_an_entry_that_cannot_be_read_stays_one(history: History) -> None:
    fit(MetaHPCallback("val_acc", history=history), model=ConfiguredModel(OmegaConf.create({**VALUES, "gone": "???"})))
    assert str(newest(history).hparams["cfg.gone"]) == "unreadable: MissingMandatoryValue"


def test_more_than_can_be_read_stays_one_value() -> None:
    assert leaves({str(i): i for i in range(MAX_LEAVES)}) != {}
    assert leaves({str(i): i for i in range(MAX_LEAVES + 1)}) == {}
    assert leaves({1: 2}) == {}
    assert leaves([1, 2]) == {}
    assert leaves(TinyData) == {}


_NAMES = st.text("abc", min_size=1, max_size=3)
_TREES = st.recursive(
    st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(_NAMES, inner, min_size=1, max_size=3), max_leaves=8
)


@given(tree=st.dictionaries(_NAMES, _TREES, min_size=1, max_size=3), data=st.data())
def test_a_leaf_that_is_replaced_changes_nothing_else(tree: dict[str, Any], data: st.DataObject) -> None:
    before = leaves(tree)
    path = data.draw(st.sampled_from(sorted(before)))
    kept = copy.deepcopy(tree)
    changed = with_leaf(tree, path, "new")
    assert tree == kept
    assert leaves(changed) == {**before, path: "new"}
