"""``MetaHParams`` in real fits: what it rewrites, what it leaves alone and says, and what it never does."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from optuna.distributions import FloatDistribution
from torch import nn
from torch.utils.data import DataLoader

from lightning_metahp import MetaHParams, MetaHPCallback
from metamodel.data.task import TaskDescription
from store import (
    History,
    HistoryPathError,
    InvalidArgumentError,
    MetaHPWarning,
    NotAppliedWarning,
    ObjectiveError,
    RunRecord,
    RunStatus,
    Source,
    SpaceError,
    UnknownHyperparameterError,
    UnknownRecommendationError,
)
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, corners, fit, make_trainer

BEST_LR = 0.03
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, BEST_LR, 0.1, 0.3)


def teach(history: History, **fit_options: Any) -> TaskDescription:
    """One real fit says which task this is; further runs of it say that a learning rate of 0.03 and batches of 32 are best."""
    fit(MetaHPCallback("val_acc", history=history), **fit_options)
    description = TaskDescription.from_dict(history.runs()[-1].description)
    for i, rate in enumerate(RATES * 2):
        size = (16, 32)[i % 2 if i < len(RATES) else (i + 1) % 2]
        with history.start_run(task=description, hparams={"lr": rate, "batch_size": size}, objective="val_acc", direction="max") as run:
            run.log({"val_acc": 0.9 - 0.2 * abs(math.log10(rate / BEST_LR)) - 0.01 * (size == 16)}, step=1, epoch=2.0)
    return description


def newest(history: History) -> RunRecord:
    return history.runs(newest_first=True, limit=1)[0]


def test_the_learning_rate_is_rewritten_before_the_optimizer_exists(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    capsys.readouterr()
    trainer = fit(MetaHParams(objective="val_acc", history=history))
    used = trainer.optimizers[0].param_groups[0]["lr"]
    assert 0.01 <= used <= 0.1
    assert trainer.lightning_module.hparams.lr == used
    said = capsys.readouterr().err
    run = newest(history)
    assert f"metahp: lr 0.001 -> {used:.4g}" in said
    assert f"recommendation {run.recommendation_id} (METAHP_PIN=" in said
    assert "expected val_acc" in said


def test_the_row_holds_what_was_asked_for_applied_and_observed(history: History) -> None:
    teach(history)
    trainer = fit(MetaHParams(objective="val_acc", history=history))
    run = newest(history)
    param = run.provenance["learning_rate"]
    assert (param.source, param.requested) == (Source.METAHP, 1e-3)
    assert param.value == param.observed == trainer.optimizers[0].param_groups[0]["lr"]
    stored = history.recommendation(str(run.recommendation_id))
    assert stored["run_id"] == run.id
    assert stored["changes"][0]["new"] == param.value
    assert stored["outcome"] == run.objective_best


def test_a_name_in_space_may_be_rewritten_although_the_user_set_it(history: History) -> None:
    teach(history)
    space = {"lr": FloatDistribution(1e-4, 0.3, log=True), "batch_size": [16, 32]}
    trainer = fit(MetaHParams(space, objective="val_acc", history=history), model=TinyModel(lr=1e-4), data=TinyData(batch_size=16))
    assert trainer.train_dataloader.batch_size == trainer.datamodule.hparams.batch_size == 32
    assert trainer.optimizers[0].param_groups[0]["lr"] > 1e-3
    run = newest(history)
    assert (run.provenance["batch_size"].source, run.provenance["batch_size"].requested) == (Source.METAHP, 16)
    assert (run.hparams["batch_size"], run.hparams["global_batch_size"]) == (32, 32)


def test_a_canonical_name_in_space_means_the_users_own_spelling(history: History) -> None:
    teach(history)
    trainer = fit(MetaHParams({"learning_rate": [1e-3, BEST_LR]}, objective="val_acc", history=history))
    assert trainer.lightning_module.hparams.lr == BEST_LR


def test_without_space_what_the_user_set_stays_and_that_is_said(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    trainer = fit(MetaHParams(objective="val_acc", history=history), model=TinyModel(lr=2e-3))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 2e-3
    assert "lr stays 0.002: set by you; list it in space to have it tuned" in capsys.readouterr().err


def test_what_is_named_in_keep_stays(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    space = {"lr": [1e-3, BEST_LR], "batch_size": [16, 32]}
    trainer = fit(MetaHParams(space, objective="val_acc", history=history, keep="learning_rate"))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-3
    assert "lr stays 0.001: named in keep" in capsys.readouterr().err


def test_it_shares_one_run_with_a_callback_beside_it_in_either_order(history: History) -> None:
    teach(history)
    n = len(history.runs())
    for pair in ("first", "last"):
        callback, params = MetaHPCallback("val_acc", history=history), MetaHParams({"lr": [1e-3, BEST_LR]})
        fit(*((params, callback) if pair == "first" else (callback, params)))
        run = newest(history)
        assert (run.recommendation_id is not None, run.provenance["learning_rate"].source) == (True, Source.METAHP)
        assert run.objective == "val_acc"
    assert len(history.runs()) == n + 2


def test_the_callback_beside_borrows_what_only_metahparams_was_told(history: History) -> None:
    fit(MetaHPCallback(history=history), MetaHParams(objective="val_loss", task="mine"))
    run = newest(history)
    assert (run.objective, run.task_name) == ("val_loss", "mine")


def test_an_empty_history_changes_nothing_and_says_why(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = fit(MetaHParams(objective="val_acc", history=history))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-3
    assert "metahp: nothing changed; not enough history (no run with an outcome). Needed: 4 runs of this task" in capsys.readouterr().err
    assert newest(history).status is RunStatus.COMPLETED


def test_dry_run_says_it_and_changes_nothing(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    trainer = fit(MetaHParams(objective="val_acc", history=history, mode="dry-run"))
    said = capsys.readouterr().err
    assert "metahp: lr 0.001 -> 0.0" in said
    assert "Dry run: nothing was rewritten." in said
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-3
    run = newest(history)
    assert (run.recommendation_id, run.provenance["learning_rate"].source) == (None, Source.DEFAULT)


def test_a_pinned_recommendation_is_applied_again_exactly(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    description = teach(history)
    first = fit(MetaHParams(objective="val_acc", history=history)).optimizers[0].param_groups[0]["lr"]
    pinned = str(newest(history).recommendation_id)
    for rate in RATES:  # would move a new recommendation
        with history.start_run(task=description, hparams={"lr": rate, "batch_size": 16}, objective="val_acc") as run:
            run.log(val_acc=rate)
    monkeypatch.setenv("METAHP_PIN", pinned)
    again = fit(MetaHParams(objective="val_acc", history=history)).optimizers[0].param_groups[0]["lr"]
    assert again == first
    assert newest(history).recommendation_id == pinned
    monkeypatch.setenv("METAHP_PIN", "no-such-id")
    with pytest.raises(UnknownRecommendationError, match="no-such-id"):
        fit(MetaHParams(objective="val_acc", history=history))


def test_metahp_off_leaves_training_exactly_as_it_was(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teach(history)
    n = len(history.runs())
    capsys.readouterr()
    monkeypatch.setenv("METAHP", "off")

    def train(*callbacks: Any) -> list[torch.Tensor]:
        L.seed_everything(3, verbose=False)
        model = TinyModel()
        fit(*callbacks, model=model)
        return [p.detach().clone() for p in model.parameters()]

    with_us, without = train(MetaHPCallback(history=history), MetaHParams(history=history)), train()
    assert all(torch.equal(a, b) for a, b in zip(with_us, without, strict=True))
    assert len(history.runs()) == n
    assert capsys.readouterr().err == ""


def test_training_is_bit_identical_where_nothing_is_rewritten(history: History) -> None:
    class Shuffling(TinyData):
        """Draws random numbers while it makes a loader, from the global state and from a generator of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator().manual_seed(1)

        def train_dataloader(self) -> DataLoader:
            order = torch.randperm(96, generator=self.generator)[: 80 + int(torch.randint(8, ()))]
            return DataLoader(torch.utils.data.Subset(self.dataset, order.tolist()), batch_size=16, shuffle=True)

    def train(*callbacks: Any) -> list[torch.Tensor]:
        L.seed_everything(3, verbose=False)
        model = TinyModel()
        fit(*callbacks, model=model, data=Shuffling())
        return [p.detach().clone() for p in model.parameters()]

    without = train()
    with_us = train(MetaHParams(objective="val_acc", history=history, mode="dry-run"), MetaHPCallback(history=history))
    assert all(torch.equal(a, b) for a, b in zip(with_us, without, strict=True))
    assert newest(history).hparams["seed"] == 3


def test_the_rewritten_values_reach_loggers_and_checkpoints(history: History, tmp_path: Path) -> None:
    teach(history)
    logger = CSVLogger(tmp_path / "logs")
    checkpoint = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    trainer = fit(
        MetaHParams({"lr": [1e-3, BEST_LR], "batch_size": [16, 32]}, objective="val_acc", history=history),
        checkpoint,
        logger=logger,
        enable_checkpointing=True,
    )
    text = (Path(logger.log_dir) / "hparams.yaml").read_text()
    assert f"lr: {trainer.lightning_module.hparams.lr}" in text
    assert f"batch_size: {trainer.datamodule.hparams.batch_size}" in text
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert saved["hyper_parameters"]["lr"] == trainer.lightning_module.hparams.lr
    assert saved["datamodule_hyper_parameters"]["batch_size"] == trainer.datamodule.hparams.batch_size


def test_a_batch_size_that_module_and_datamodule_share_is_rewritten_in_both(history: History, tmp_path: Path) -> None:
    class Sharing(TinyModel):
        def __init__(self, lr: float = 1e-3, batch_size: int = 16) -> None:
            super().__init__(lr=lr)
            self.save_hyperparameters()

    teach(history, model=Sharing())
    trainer = fit(
        MetaHParams({"batch_size": [16, 32], "lr": [1e-3, BEST_LR]}, objective="val_acc", history=history),
        model=Sharing(),
        logger=CSVLogger(tmp_path),
    )
    assert trainer.lightning_module.hparams.batch_size == trainer.datamodule.hparams.batch_size == 32


def test_a_batch_is_never_larger_than_the_data_set(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history, data=TinyData(n=24))
    trainer = fit(MetaHParams({"batch_size": [32, 64]}, objective="val_acc", history=history), data=TinyData(n=24))
    assert trainer.train_dataloader.batch_size <= 24
    if trainer.train_dataloader.batch_size == 24:
        assert "batch_size: the data set has 24 samples" in capsys.readouterr().err


def test_loaders_passed_to_fit_keep_their_batch_size_and_the_rest_is_tuned(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    loader = DataLoader(corners(), batch_size=16, shuffle=True)
    teach(history, data=loader)
    trainer = fit(
        MetaHParams({"lr": [1e-3, BEST_LR], "batch_size": [16, 32]}, objective="val_acc", history=history),
        data=loader,
    )
    assert trainer.train_dataloader.batch_size == 16
    assert trainer.optimizers[0].param_groups[0]["lr"] == BEST_LR
    assert "batch_size stays 16: the loaders were passed to fit() and are fixed" in capsys.readouterr().err


def test_loaders_built_in_the_datamodules_own_setup_keep_their_batch_size(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    class Only(L.LightningDataModule):
        def __init__(self, batch_size: int = 16) -> None:
            super().__init__()
            self.save_hyperparameters()

        def setup(self, stage: str) -> None:
            self.loader = DataLoader(corners(), batch_size=self.hparams.batch_size)

        def train_dataloader(self) -> DataLoader:
            return self.loader

        def val_dataloader(self) -> DataLoader:
            return DataLoader(corners(), batch_size=64)

    teach(history, data=Only())
    trainer = fit(MetaHParams({"lr": [1e-3, BEST_LR], "batch_size": [16, 32]}, objective="val_acc", history=history), data=Only())
    assert (trainer.train_dataloader.batch_size, trainer.lightning_module.hparams.lr) == (16, BEST_LR)
    assert "batch_size stays 16: only Only.__init__ or setup reads it" in capsys.readouterr().err


def test_what_only_init_reads_is_left_alone_and_said(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    trainer = fit(MetaHParams({"lr": [1e-3, BEST_LR], "hidden": [4, 8, 16]}, objective="val_acc", history=history))
    assert trainer.lightning_module.hparams.hidden == 8
    assert "hidden stays 8: TinyModel.__init__ has already run and built with it" in capsys.readouterr().err


def test_a_layer_made_in_configure_model_may_be_rewritten(history: History) -> None:
    class Late(TinyModel):
        def __init__(self, lr: float = 1e-3, breadth: int = 4) -> None:
            super().__init__(lr=lr)
            self.save_hyperparameters()

        def configure_model(self) -> None:
            self.net = nn.Sequential(nn.Linear(4, self.hparams.breadth), nn.Linear(self.hparams.breadth, 3))

    fit(MetaHPCallback("val_acc", history=history), model=Late())
    description = TaskDescription.from_dict(history.runs()[-1].description)
    for breadth in (4, 8) * 6:
        with history.start_run(task=description, hparams={"breadth": breadth}, objective="val_acc") as run:
            run.log(val_acc=0.1 * breadth, epoch=2.0)
    trainer = fit(MetaHParams({"breadth": [4, 8]}, objective="val_acc", history=history), model=Late())
    assert trainer.lightning_module.net[0].out_features == 8


def test_a_value_the_optimizer_does_not_use_gives_a_loud_warning_and_the_row_holds_what_it_uses(history: History) -> None:
    class Deaf(TinyModel):
        def configure_optimizers(self) -> Any:
            print(self.hparams.lr)  # read, and not used
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    teach(history, model=Deaf())
    with pytest.warns(NotAppliedWarning, match=r"lr is 0\.001 in Adam instead of 0\.03\."):
        fit(MetaHParams({"lr": [1e-3, BEST_LR]}, objective="val_acc", history=history), model=Deaf())
    param = newest(history).provenance["learning_rate"]
    assert (param.value, param.observed) == (1e-3, 1e-3)


def test_a_schedule_does_not_hide_the_learning_rate(history: History, recwarn: pytest.WarningsRecorder) -> None:
    class Scheduled(TinyModel):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
            one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.hparams.lr, total_steps=50)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": one_cycle, "interval": "step"}}

    class Warm(TinyModel):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
            warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warm, "interval": "step"}}

    for model in (Scheduled, Warm):
        teach(history, model=model())
        fit(MetaHParams({"lr": [1e-3, BEST_LR]}, objective="val_acc", history=history), model=model())
        assert newest(history).provenance["learning_rate"].observed == BEST_LR
    assert not [item for item in recwarn if issubclass(item.category, NotAppliedWarning)]


def test_an_attribute_that_mirrors_an_argument_is_rewritten_with_it(history: History) -> None:
    class Mirrored(TinyModel):
        def __init__(self, lr: float = 1e-3) -> None:
            super().__init__(lr=lr)
            self.learning_rate = lr

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    teach(history, model=Mirrored())
    trainer = fit(MetaHParams({"lr": [1e-3, BEST_LR]}, objective="val_acc", history=history), model=Mirrored())
    assert trainer.optimizers[0].param_groups[0]["lr"] == trainer.lightning_module.hparams.lr == BEST_LR


def test_a_second_fit_starts_from_the_users_own_values(history: History) -> None:
    teach(history)
    model, params = TinyModel(), MetaHParams({"lr": [1e-3, BEST_LR]}, objective="val_acc", history=history)
    fit(params, model=model)
    fit(params, model=model)
    assert newest(history).provenance["learning_rate"].requested == 1e-3


@pytest.mark.parametrize("finder", [LearningRateFinder(num_training_steps=30, attr_name="lr", early_stop_threshold=None)])
def test_it_stands_down_for_a_learning_rate_finder(
    history: History, finder: LearningRateFinder, capsys: pytest.CaptureFixture[str]
) -> None:
    teach(history)
    space = {"lr": [1e-3, BEST_LR], "batch_size": [16, 32]}
    trainer = fit(MetaHParams(space, objective="val_acc", history=history), finder, enable_checkpointing=True, max_epochs=9)
    assert "lr stays 0.001: LearningRateFinder sets it" in capsys.readouterr().err
    assert trainer.train_dataloader.batch_size == 32, "the finder's own checkpoint is no resumed run"
    assert newest(history).hparams["learning_rate"] == trainer.lightning_module.hparams.lr != BEST_LR


def test_it_stands_down_for_a_batch_size_finder(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    space = {"lr": [1e-3, BEST_LR], "batch_size": [16, 32]}
    finder = BatchSizeFinder(max_trials=2, init_val=4, steps_per_trial=1)
    trainer = fit(MetaHParams(space, objective="val_acc", history=history), finder, enable_checkpointing=True)
    assert "batch_size stays 16: BatchSizeFinder sets it" in capsys.readouterr().err
    assert trainer.lightning_module.hparams.lr == BEST_LR


def test_tuner_probes_and_fast_dev_run_are_left_alone(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    n = len(history.runs())
    capsys.readouterr()
    trainer = make_trainer(MetaHParams({"batch_size": [16, 32]}, objective="val_acc", history=history), enable_checkpointing=True)
    data = TinyData()
    Tuner(trainer).lr_find(TinyModel(), datamodule=data, num_training=10, update_attr=False)
    assert data.hparams.batch_size == 16
    fit(MetaHParams({"lr": [BEST_LR]}, objective="val_acc", history=history), fast_dev_run=True)
    assert "metahp" not in capsys.readouterr().err
    assert len(history.runs()) == n


def test_the_objective_of_earlier_runs_serves_where_none_is_named(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    teach(history)
    capsys.readouterr()
    fit(MetaHParams(history=history))
    said = capsys.readouterr().err
    assert "metahp: lr 0.001 -> " in said
    assert "The objective val_acc (max) is that of earlier runs of this task." in said


def test_without_any_objective_it_abstains_and_says_so(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    fit(MetaHParams(history=history))
    assert "metahp: nothing changed; the objective is not known. Nothing says it before the first validation" in capsys.readouterr().err
    assert newest(history).objective == "val_acc"


def test_a_monitored_metric_is_the_objective(history: History, tmp_path: Path) -> None:
    teach(history)
    checkpoint = ModelCheckpoint(monitor="val_acc", mode="max", dirpath=tmp_path)
    fit(MetaHParams({"lr": [1e-3, BEST_LR]}, history=history), checkpoint, enable_checkpointing=True)
    assert newest(history).hparams["learning_rate"] == BEST_LR


def test_data_that_cannot_be_seen_before_the_start_means_hands_off_with_a_way_out(
    history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hidden(TinyModel):
        def setup(self, stage: str) -> None:
            self.dataset = corners()

        def train_dataloader(self) -> DataLoader:
            return DataLoader(self.dataset, batch_size=16)

        def val_dataloader(self) -> DataLoader:
            return DataLoader(self.dataset, batch_size=64)

    def train(**options: Any) -> None:
        make_trainer(MetaHParams(objective="val_acc", history=history, **options)).fit(Hidden())

    train()
    assert "Pass task='a name for it' to MetaHParams" in capsys.readouterr().err
    train(task="hidden")
    assert "nothing changed; not enough history (no run with an outcome)" in capsys.readouterr().err


def test_a_name_the_module_does_not_have_is_answered_with_those_it_has(history: History) -> None:
    expected = (
        "A name to rewrite must be a hyperparameter of TinyModel or TinyData, but got 'learnign_rate'; "
        "it has: batch_size, dropout, hidden, lr, n, name, weight_decay. Did you mean 'lr'?"
    )
    with pytest.raises(UnknownHyperparameterError) as caught:
        fit(MetaHParams({"learnign_rate": [0.1]}, history=history))
    assert str(caught.value) == expected
    with pytest.raises(UnknownHyperparameterError, match="got 'lrr'"):
        fit(MetaHParams(keep=("lrr",), history=history))
    assert history.runs() == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"space": {"lr": []}}, SpaceError, "A list in a space must hold at least one value, but 'lr' got an empty one"),
        ({"space": {"lr": 0.1}}, SpaceError, "must be an Optuna distribution or a list"),
        ({"mode": "fast"}, InvalidArgumentError, "mode must be one of 'best', 'explore', 'dry-run', but got 'fast'"),
        ({"keep": [3]}, InvalidArgumentError, "keep must list hyperparameter names, but got 3"),
        ({"max_startup_s": 0}, InvalidArgumentError, "max_startup_s must be a positive number of seconds, but got 0"),
        ({"direction": "up"}, ObjectiveError, "A direction must be 'min' or 'max', but got 'up'"),
    ],
)
def test_bad_arguments_are_answered_at_once(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        MetaHParams(**arguments)


def test_a_history_that_was_asked_for_and_cannot_be_used_is_an_error_before_training(tmp_path: Path) -> None:
    with pytest.raises(HistoryPathError, match=str(tmp_path)):
        fit(MetaHParams(objective="val_acc", history=tmp_path))


def test_a_broken_history_changes_nothing_and_training_goes_on(history: History) -> None:
    teach(history)
    path = history.path
    history.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE recommendations")
    with pytest.warns(MetaHPWarning, match="Training goes on"):
        trainer = fit(MetaHParams(objective="val_acc", history=path))
    assert (trainer.global_step, trainer.lightning_module.hparams.lr) == (12, 1e-3)


def test_an_error_while_writing_a_value_puts_everything_back(history: History) -> None:
    class Stubborn(TinyModel):
        @property
        def lr(self) -> float:
            return 1e-3

        @lr.setter
        def lr(self, value: float) -> None:
            raise ValueError("no")

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.lr)

    teach(history, model=Stubborn())
    with pytest.warns(MetaHPWarning, match="ValueError: no"):
        trainer = fit(MetaHParams({"batch_size": [16, 32], "lr": [1e-3, BEST_LR]}, objective="val_acc", history=history), model=Stubborn())
    assert (trainer.lightning_module.hparams.lr, trainer.train_dataloader.batch_size) == (1e-3, 16)
    assert newest(history).recommendation_id is None


def test_other_callbacks_see_the_rewritten_values_in_their_own_setup(history: History) -> None:
    teach(history)
    seen: list[float] = []

    class Looking(Callback):
        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            seen.append(pl_module.hparams.lr)

    fit(MetaHParams({"lr": [1e-3, BEST_LR]}, objective="val_acc", history=history), Looking())
    assert seen == [BEST_LR]


def test_two_names_of_one_knob_are_left_alone_since_nobody_could_tell_them_apart(
    history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    class Twice(TinyModel):
        def __init__(self, lr: float = 1e-3, base_lr: float = 1e-2) -> None:
            super().__init__(lr=lr)
            self.save_hyperparameters()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam([{"params": self.net.parameters(), "lr": self.hparams.lr}], lr=self.hparams.base_lr)

    teach(history, model=Twice())
    trainer = fit(MetaHParams({"base_lr": [1e-3, BEST_LR]}, objective="val_acc", history=history), model=Twice())
    assert (trainer.lightning_module.hparams.lr, trainer.lightning_module.hparams.base_lr) == (1e-3, 1e-2)
    assert "base_lr and lr both mean learning_rate" in capsys.readouterr().err
