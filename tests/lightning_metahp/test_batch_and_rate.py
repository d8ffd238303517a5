"""Batch size and learning rate are one decision: a global batch, split over what the run has, within what is known to fit."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_metahp import MetaHParams, MetaHPCallback
from metamodel import recommend
from metamodel.data.task import TaskDescription
from store import History, RunStatus, Source
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.test_callback import Raise
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit


def teach(history: History, factor: int) -> TaskDescription:
    """Runs whose best global batch is 64 with a rate of 0.03, some of them accumulated."""
    with History(history.path.with_name("described.db")) as other:  # what this fit comes to is luck, and none of what is taught
        fit(MetaHPCallback("val_acc", history=other))
        description = TaskDescription.from_dict(other.runs()[-1].description)
    for i, rate in enumerate((1e-3, 0.01, 0.03, 0.1) * 4):
        size = (16, 32, 64, 96)[(i + i // 4) % 4]
        value = 0.9 - 0.1 * abs(math.log10(rate / 0.03)) - 0.1 * abs(math.log2(size / 64))
        hparams = {"lr": rate, "batch_size": size // factor, "gradient_accumulation_steps": factor, "global_batch_size": size}
        with history.start_run(task=description, hparams=hparams, objective="val_acc") as run:
            run.log(val_acc=value, epoch=2.0)
    return description


@pytest.mark.parametrize("factor", [1, 2])
def test_what_was_learned_of_a_global_batch_is_split_over_the_accumulation_of_this_run(
    history: History, factor: int, capsys: pytest.CaptureFixture[str]
) -> None:
    teach(history, factor)
    space = {"lr": [1e-3, 0.01, 0.03, 0.1], "batch_size": [8, 16, 32, 48]}
    trainer = fit(MetaHParams(space, objective="val_acc", history=history), accumulate_grad_batches=2)
    run = newest(history)
    assert (trainer.train_dataloader.batch_size, run.hparams["global_batch_size"], run.hparams["learning_rate"]) == (32, 64, 0.03)
    assert "32 per device x 2 accumulated x 1 processes = a global batch of 64" in capsys.readouterr().err
    stored = history.recommendation(str(run.recommendation_id))["recommendation"]["config"]
    assert stored == {"lr": 0.03, "global_batch_size": 64}


def test_asked_without_a_host_a_batch_size_is_the_global_one(history: History) -> None:
    description = teach(history, 2)
    (found,) = recommend(history, task=description, space={"lr": [0.03], "global_batch_size": [16, 64]}, current={"batch_size": 8})
    assert found.config["global_batch_size"] == 64
    (found,) = recommend(history, task=description, space={"batch_size": [16, 32, 64, 96]}, limits={"batch_size": 40})
    assert found.config["batch_size"] == 32


def test_a_batch_that_ran_out_of_memory_is_not_tried_again(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        fit(MetaHPCallback("val_acc", history=history), Raise(error), data=TinyData(batch_size=24))
    assert newest(history).status is RunStatus.OOM
    pin(history, monkeypatch, batch_size=32, lr=0.03)
    trainer = fit(MetaHParams(objective="val_acc", history=history))
    assert trainer.train_dataloader.batch_size == 21
    run = newest(history)
    assert (run.provenance["batch_size"].source, run.hparams["learning_rate"]) == (Source.CONSTRAINT, 0.03)
    said = "batch_size: 32 was recommended, but a batch of 24 per device ran out of memory (10% margin kept)"
    assert said in capsys.readouterr().err
    trainer = fit(MetaHParams({"batch_size": [8, 16, 32]}, objective="val_acc", history=history), data=TinyData(batch_size=8))
    assert trainer.train_dataloader.batch_size == 16, "of the sizes on offer the largest that fits"


def test_a_mode_that_explores_and_one_that_is_patient(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history, 1)
    trainer = fit(MetaHParams({"lr": [1e-3, 0.01, 0.03, 0.1]}, objective="val_acc", history=history, mode="explore", max_startup_s=0.2))
    assert trainer.lightning_module.hparams.lr in (1e-3, 0.01, 0.03, 0.1)
    stored = history.recommendation(capsys.readouterr().err.split("recommendation ")[1].split()[0])
    assert stored["recommendation"]["mode"] == "explore"
    assert TinyModel().hparams.lr == 1e-3
