"""An optimizer that a module is given as a callable (LightningCLI's ``OptimizerCallable``): its arguments are the configuration's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import LightningCLI, OptimizerCallable

from lightning_metahp import MetaHParams, MetaHPCallback, MetaHPCLI
from store import History
from store.statuses import Source
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import TinyData, TinyModel

QUIET = ["fit", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.limit_train_batches=1"]
QUIET += [f"--trainer.{name}=false" for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")]
GIVEN = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.init_args.lr=0.01", "--model.optimizer.init_args.momentum=0.5"]


class Model(TinyModel):
    def __init__(self, hidden: int = 8, optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5)) -> None:
        super().__init__(hidden=hidden)
        for kept in (self.hparams, self._hparams_initial):
            kept.clear()
        self.save_hyperparameters()
        self.optimizer = optimizer

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


def run(make: Callable[..., Any], *args: str, **options: Any) -> Any:
    return make(Model, TinyData, args=[*QUIET, *args], save_config_callback=None, seed_everything_default=False, **options)


@pytest.mark.parametrize("subclass", [False, True])
@pytest.mark.parametrize("given", [True, False])
def test_its_rate_is_tuned_recorded_and_read_back(history: History, monkeypatch: pytest.MonkeyPatch, given: bool, subclass: bool) -> None:
    pin(history, monkeypatch, lr=0.3, momentum=0.9)
    args = GIVEN if given else []
    if subclass:
        args = [f"--model={__name__}.Model", *(item.replace("--model.", "--model.init_args.") for item in args)]
    space = {"lr": [0.01, 0.3], "momentum": [0.5, 0.9]}
    cli = run(MetaHPCLI, *args, subclass_mode_model=subclass, space=space, objective="val_acc", history=history)
    group = cli.trainer.optimizers[0].param_groups[0]
    assert (group["lr"], group["momentum"]) == (0.3, 0.9)
    found = newest(history).provenance
    rate = found["learning_rate"]
    assert (rate.value, rate.requested, rate.observed, rate.source) == (0.3, 0.01, 0.3, Source.METAHP)
    assert (found["momentum"].value, found["optimizer"].value) == (0.9, "SGD")


def test_a_rate_on_the_command_line_is_set_by_the_user(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(history, monkeypatch, lr=0.3)
    cli = run(MetaHPCLI, *GIVEN, objective="val_acc", history=history)
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.01
    assert "lr stays 0.01: set by you" in capsys.readouterr().err


def test_under_lightnings_own_command_line_the_way_that_works_is_named(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(history, monkeypatch, lr=0.3)
    callbacks = [MetaHPCallback("val_acc", history=history), MetaHParams({"lr": [0.01, 0.3]}, history=history)]
    cli = run(LightningCLI, *GIVEN, trainer_defaults={"callbacks": callbacks})
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.01
    assert "LightningCLI has made a function of the optimizer already; use MetaHPCLI" in capsys.readouterr().err
    assert newest(history).hparams["learning_rate"] == 0.01
