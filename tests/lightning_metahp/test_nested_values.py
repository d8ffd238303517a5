"""Hyperparameters that hold others by name: recorded value by value, and those for the optimizer tuned."""

from __future__ import annotations

import argparse
import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule
from omegaconf import OmegaConf, open_dict, read_write
from torch.utils.data import DataLoader

from lightning_metahp import MetaHParams, MetaHPCallback
from lightning_metahp.nested_values import MAX_LEAVES, REST, leaves, with_leaf
from lightning_metahp.written_optimizer import written_optimizer
from store import History, Source
from store.errors import UnknownHyperparameterError
from tests.contrary import Contrary
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, corners, fit


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
    fit(MetaHParams({"layers": [2, 3]}, objective="val_acc", history=history), model=ConfiguredModel(copy.deepcopy(VALUES)))
    assert "make layers an argument" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cfg", "optim", "cfg.optim"])
def test_a_part_that_is_no_value_cannot_be_named_and_the_error_lists_what_can(name: str, history: History) -> None:
    with pytest.raises(UnknownHyperparameterError, match=rf"{name}'? holds several; it has: .*cfg\.optim\.lr, cfg\.optim\.wd"):
        fit(MetaHParams({name: [0.1, 0.2]}, objective="val_acc", history=history), model=ConfiguredModel(copy.deepcopy(VALUES)))


@pytest.mark.parametrize("name", ["lr", "optim.lr", "cfg.optim.lr"])
def test_a_value_inside_can_be_named_by_its_path(name: str, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, lr=0.03)
    trainer = fit(MetaHParams({name: [1e-3, 0.03]}, objective="val_acc", history=history), model=ConfiguredModel(copy.deepcopy(VALUES)))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.03
    kept = MetaHParams({name: [1e-3, 0.03]}, objective="val_acc", history=history, keep=(name,))
    assert fit(kept, model=ConfiguredModel(copy.deepcopy(VALUES))).optimizers[0].param_groups[0]["lr"] == 1e-3


def test_a_path_that_does_not_exist_hints_at_the_name_that_does(history: History) -> None:
    with pytest.raises(UnknownHyperparameterError, match="Did you mean 'lr'"):
        fit(MetaHParams({"optimizer.lr": [1e-3, 0.03]}, objective="val_acc", history=history), model=TinyModel())


def test_of_two_rates_the_one_named_by_its_path_is_tuned(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, **{"cfg.optim.lr": 0.03})
    model = ConfiguredModel({**copy.deepcopy(VALUES), "critic": {"lr": 0.5}})
    record = MetaHPCallback("val_acc", history=history)
    fit(MetaHParams({"optim.lr": [1e-3, 0.03]}, objective="val_acc", history=history), record, model=model)
    run = newest(history)
    assert (run.hparams["learning_rate"], run.hparams["cfg.optim.lr"], run.hparams["cfg.critic.lr"]) == (0.03, 0.03, 0.5)
    assert run.provenance["cfg.optim.lr"].source is Source.METAHP


class Built(ConfiguredModel):
    """Dropout is made in ``__init__``, as nearly everybody does."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.net[2] = torch.nn.Dropout(cfg.dropout)


class ConfiguredData(TinyData):
    def __init__(self, cfg: Any) -> None:
        LightningDataModule.__init__(self)
        self.cfg = cfg

    def setup(self, stage: str) -> None:
        self.dataset = corners()
        self.early = self.cfg.data.size

    def train_dataloader(self) -> Any:
        return DataLoader(self.dataset, batch_size=self.cfg.data.batch_size)


class EarlyData(ConfiguredData):
    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.size = self.cfg.data.batch_size

    def train_dataloader(self) -> Any:
        return DataLoader(self.dataset, batch_size=self.size)


def test_dropout_and_batch_size_inside_are_tuned_and_logged(history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pin(history, monkeypatch, lr=0.03, dropout=0.3, batch_size=32)
    config = _read_only()
    with read_write(config), open_dict(config):
        config.dropout, config.data = 0.1, {"batch_size": 16, "size": 3}
    space = {"lr": [1e-3, 0.03], "dropout": [0.1, 0.3], "data.batch_size": [16, 32]}
    callbacks = MetaHParams(space, objective="val_acc", history=history), MetaHPCallback("val_acc", history=history)
    model = Built(config)
    trainer = fit(*callbacks, model=model, data=ConfiguredData(config))
    assert (model.net[2].p, trainer.train_dataloader.batch_size, config.dropout, config.data.batch_size) == (0.3, 32, 0.1, 16)
    run = newest(history)
    assert (run.hparams["dropout"], run.hparams["per_device_batch_size"]) == (0.3, 32)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)["hyper_parameters"]["cfg"]
    assert (saved.optim.lr, saved.dropout, model.hparams_initial.cfg.dropout) == (0.03, 0.3, 0.3)


def test_a_batch_size_that_setup_reads_is_too_late(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.create({**VALUES, "data": {"batch_size": 16, "size": 3}})
    tune = MetaHParams({"batch_size": [16, 32]}, objective="val_acc", history=history)
    fit(tune, model=ConfiguredModel(config), data=EarlyData(config))
    assert "read self.hparams.cfg.data.batch_size in train_dataloader()" in capsys.readouterr().err


class Kept(TinyModel):
    def __init__(self, args: Any) -> None:
        super().__init__()
        for kept in (self.hparams, self._hparams_initial):
            kept.clear()
        self.save_hyperparameters(args, logger=False)
        self.args = args
        self.rate = args.lr
        self.part = args.optim

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate, weight_decay=self.part.wd, eps=self.args.eps)


def test_a_value_is_written_into_every_attribute_that_keeps_it(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, lr=0.03, wd=0.1, eps=1e-6)
    model = Kept(argparse.Namespace(lr=1e-3, eps=1e-8, optim=argparse.Namespace(wd=0.0)))
    space = {"lr": [1e-3, 0.03], "wd": [0.0, 0.1], "eps": [1e-8, 1e-6]}
    group = fit(MetaHParams(space, objective="val_acc", history=history), model=model).optimizers[0].param_groups[0]
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.03, 0.1, 1e-6)


class Early(ConfiguredModel):
    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.rate = float(cfg.optim.lr)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate, weight_decay=self.cfg.optim.wd)


def test_a_value_that_only_init_reads_is_refused_though_another_of_its_part_is_read_later(
    history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(MetaHParams({"lr": [1e-3, 0.03]}, objective="val_acc", history=history), model=Early(_read_only()))
    assert "lr stays 0.001: only Early.__init__ reads it" in capsys.readouterr().err


def test_a_copy_of_what_the_trainer_has_is_not_taken_for_it(history: History) -> None:
    config = {**copy.deepcopy(VALUES), "trainer": {"max_epochs": 77, "accumulate_grad_batches": 4}}
    fit(MetaHPCallback("val_acc", history=history), model=ConfiguredModel(config))
    run = newest(history)
    assert (run.hparams["num_epochs"], run.hparams["gradient_accumulation_steps"]) == (2, 1)
    assert run.hparams["cfg.trainer.max_epochs"] == 77


def test_the_optimizer_that_a_configuration_names_is_known_before_it_is_made() -> None:
    model = ConfiguredModel({"optim": {"_target_": "torch.optim.SGD", "lr": 0.1, "wd": 0.0}})
    assert written_optimizer(model) == {"optimizer": "SGD"}


def test_values_that_cannot_be_copied_cost_nothing(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, lr=0.03)
    config: dict[str, Any] = {**copy.deepcopy(VALUES), "lock": threading.Lock(), "contrary": Contrary()}
    config |= {f"again{i}": config for i in range(9)}
    model = ConfiguredModel(copy.deepcopy(VALUES))
    model.hparams["cfg"] = model.cfg = config
    trainer = fit(
        MetaHParams({"lr": [1e-3, 0.03]}, objective="val_acc", history=history), MetaHPCallback("val_acc", history=history), model=model
    )
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.03
    assert newest(history).hparams["learning_rate"] == 0.03


@dataclass(frozen=True, slots=True)
class Frozen:
    lr: float = 1e-3
    made: int = field(init=False, default=3)


def test_a_frozen_dataclass_gets_a_copy() -> None:
    first = Frozen()
    assert leaves(with_leaf({"optim": first}, "optim.lr", 0.03)) == {"optim.lr": 0.03, "optim.made": 3}
    assert first.lr == 1e-3


def test_of_very_many_values_the_rest_is_one_and_that_is_logged(history: History, caplog: pytest.LogCaptureFixture) -> None:
    config = {**copy.deepcopy(VALUES), **{f"part{i}": {f"x{j}": j for j in range(100)} for i in range(3)}}
    fit(MetaHPCallback("val_acc", history=history), model=ConfiguredModel(config))
    run = newest(history)
    assert sum(name.startswith("cfg.part") for name in run.hparams) + 4 == MAX_LEAVES
    assert len(run.hparams[f"cfg.{REST}"]) == 304 - MAX_LEAVES
    assert caplog.text.count("the others are recorded as one") == 1


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
