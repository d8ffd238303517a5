"""What the start of a fit costs: a look at the data, and no more than one."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_metahp import MetaHParams, MetaHPCallback, task_readout
from store import History
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit, make_trainer


def test_the_data_is_looked_at_once_before_the_start_and_not_again(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    look = task_readout.describe_dataset

    def counted(dataset: object) -> dict[str, Any]:
        looked.append(dataset)
        return look(dataset)

    monkeypatch.setattr(task_readout, "describe_dataset", counted)
    params = MetaHParams({"lr": [1e-3, 1e-2]}, objective="val_acc", history=history)
    fit(params)
    assert len(looked) == 1
    fit(params, data=TinyData(n=48))
    assert [len(dataset) for dataset in looked] == [96, 48]  # type: ignore[arg-type]
    assert [run.description["n_train"] for run in history.runs()] == [96, 48]


def test_what_was_seen_of_the_data_of_a_fit_that_failed_is_not_taken_for_the_next_one(history: History) -> None:
    class Broken(TinyModel):
        def configure_optimizers(self) -> Any:
            raise RuntimeError("broken")

    log, params = MetaHPCallback("val_acc", history=history), MetaHParams({"lr": [1e-3, 1e-2]}, history=history)
    trainer = make_trainer(log, params)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Broken(), datamodule=TinyData(n=48))
    trainer.callbacks.remove(params)  # nobody looks before the start of the next one
    trainer.fit(TinyModel(), datamodule=TinyData())
    assert [run.description["n_train"] for run in history.runs()] == [96]
