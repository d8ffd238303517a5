"""``MetaHPCLI`` is a ``LightningCLI`` whose runs are logged."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI

from lightning_metahp import MetaHPCallback, MetaHPCLI
from store import History
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, only_run

ARGUMENTS = ["--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.accelerator=cpu"]


def test_it_is_a_lightning_cli() -> None:
    assert issubclass(MetaHPCLI, LightningCLI)


def test_its_runs_are_logged(isolated_history: Path) -> None:
    pytest.importorskip("jsonargparse")
    arguments = ["fit", *ARGUMENTS, "--model.lr=0.02", "--trainer.enable_progress_bar=false"]
    MetaHPCLI(TinyModel, TinyData, args=arguments, save_config_callback=None)
    with History(isolated_history) as history:
        assert only_run(history).hparams["learning_rate"] == 0.02


def test_a_callback_in_the_configuration_is_not_doubled() -> None:
    pytest.importorskip("jsonargparse")
    arguments = [*ARGUMENTS, "--trainer.callbacks+=lightning_metahp.callback.MetaHPCallback", "--trainer.callbacks.objective=val_acc"]
    cli = MetaHPCLI(TinyModel, TinyData, args=arguments, save_config_callback=None, run=False)
    found = [callback for callback in cli.trainer.callbacks if isinstance(callback, MetaHPCallback)]
    assert [callback.run_log.objective for callback in found] == ["val_acc"]
