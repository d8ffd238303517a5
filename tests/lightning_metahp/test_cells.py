"""Every value a Lightning run can have rewritten at its start, one real fit each: in force afterwards, or refused with the reason."""

from __future__ import annotations

import os
import warnings
from itertools import pairwise
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader

from lightning_metahp import MetaHParams
from store import History, NotAppliedWarning, RunRecord, Source, UnknownHyperparameterError
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, corners, fit

NEW = 0.03


class Configurable(TinyModel):
    """Reads everything in ``configure_optimizers`` or later; a schedule is made by what it is given."""

    def __init__(self, lr: float = 1e-3, weight_decay: float = 0.0, momentum: float = 0.5, smoothing: float = 0.0) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay)
        self.save_hyperparameters()
        self.make: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1], label_smoothing=self.hparams.smoothing)

    def configure_optimizers(self) -> Any:
        hparams = self.hparams
        optimizer = torch.optim.SGD(self.parameters(), lr=hparams.lr, momentum=hparams.momentum, weight_decay=hparams.weight_decay)
        if self.make is None:
            return optimizer
        schedule = self.make(self, optimizer)
        settings: dict[str, Any] = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, schedules.ReduceLROnPlateau):
            settings |= {"monitor": "val_loss", "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": settings}


def tuned(history: History, *callbacks: Any, space: Any = None, **options: Any) -> tuple[L.Trainer, RunRecord]:
    """Fit with what is pinned; a value that is announced and not in force fails the test."""
    names = history.recommendation(history_pin())["recommendation"]["config"]
    space = {name: [value, *([] if value in (0.5,) else [0.5])] for name, value in names.items()} if space is None else space
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(MetaHParams(space, objective="val_acc", history=history), *callbacks, **options)
    assert [str(item.message) for item in caught if issubclass(item.category, NotAppliedWarning)] == []
    return trainer, newest(history)


def history_pin() -> str:
    return os.environ["METAHP_PIN"]


def was_rewritten(run: RunRecord, name: str, old: Any, new: Any) -> bool:
    param = run.provenance[name]
    return (param.requested, param.value, param.source) == (old, new, Source.METAHP) and param.observed in (None, new)


@pytest.mark.parametrize(
    "make",
    [
        None,
        lambda m, o: schedules.OneCycleLR(o, max_lr=m.hparams.lr, total_steps=100, cycle_momentum=False),
        lambda m, o: schedules.ReduceLROnPlateau(o),
        lambda m, o: schedules.LambdaLR(o, lambda step: min(1.0, (step + 1) / 5)),
        lambda m, o: schedules.CosineAnnealingLR(o, int(m.trainer.estimated_stepping_batches)),
        lambda m, o: schedules.SequentialLR(o, [schedules.LinearLR(o), schedules.ConstantLR(o)], milestones=[4]),
        lambda m, o: schedules.CyclicLR(o, base_lr=m.hparams.lr / 10, max_lr=m.hparams.lr),
    ],
    ids=["no-schedule", "one-cycle", "plateau", "warm-up", "cosine", "sequential", "cyclic"],
)
def test_the_learning_rate_is_found_under_every_schedule(history: History, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    pin(history, monkeypatch, lr=NEW)
    model = Configurable()
    model.make = make
    _, run = tuned(history, model=model)
    assert was_rewritten(run, "learning_rate", 1e-3, NEW)


def test_weight_decay_momentum_and_any_other_name_that_is_read_later(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, weight_decay=0.01, momentum=0.9, smoothing=0.2)
    trainer, run = tuned(history, model=Configurable())
    group = trainer.optimizers[0].param_groups[0]
    assert (group["weight_decay"], group["momentum"]) == (0.01, 0.9)
    assert was_rewritten(run, "weight_decay", 0.0, 0.01)
    assert was_rewritten(run, "momentum", 0.5, 0.9)
    assert was_rewritten(run, "smoothing", 0.0, 0.2)


def test_several_optimizers_under_manual_optimization(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(TinyModel):
        def __init__(self, lr: float = 1e-3, lr_head: float = 1e-2) -> None:
            super().__init__(lr=lr)
            self.save_hyperparameters()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self) -> Any:
            body, head = self.net[0].parameters(), self.net[3].parameters()
            return [torch.optim.Adam(body, lr=self.hparams.lr), torch.optim.Adam(head, lr=self.hparams.lr_head)], []

    pin(history, monkeypatch, lr=NEW, lr_head=0.2)
    trainer, run = tuned(history, model=Two())
    assert [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers] == [NEW, 0.2]
    assert was_rewritten(run, "lr_head", 1e-2, 0.2)


def test_the_batch_size_of_a_datamodule(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, batch_size=32)
    trainer, run = tuned(history)
    assert trainer.train_dataloader.batch_size == 32
    assert was_rewritten(run, "batch_size", 16, 32)


def test_the_batch_size_of_a_module_that_makes_its_own_loaders(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(TinyModel):
        def __init__(self, lr: float = 1e-3, bs: int = 16) -> None:
            super().__init__(lr=lr)
            self.save_hyperparameters()

        def train_dataloader(self) -> DataLoader:
            return DataLoader(corners(), batch_size=self.hparams.bs)

        def val_dataloader(self) -> DataLoader:
            return DataLoader(corners(), batch_size=64)

    pin(history, monkeypatch, bs=32)
    from tests.lightning_metahp.tiny_training import make_trainer

    trainer = make_trainer(MetaHParams({"bs": [16, 32]}, objective="val_acc", history=history))
    trainer.fit(Own())
    assert trainer.train_dataloader.batch_size == 32
    assert was_rewritten(newest(history), "batch_size", 16, 32)


def test_epochs_and_clipping_where_the_space_names_them_and_the_schedule_sees_them(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(history, monkeypatch, max_epochs=3, gradient_clip_val=0.7)
    model = Configurable()
    model.make = lambda m, o: schedules.LinearLR(o, total_iters=int(m.trainer.estimated_stepping_batches))
    trainer, run = tuned(history, model=model)
    assert (trainer.global_step, trainer.gradient_clip_val, trainer.lr_scheduler_configs[0].scheduler.total_iters) == (18, 0.7, 18)
    assert was_rewritten(run, "num_epochs", 2, 3)
    assert was_rewritten(run, "max_grad_norm", None, 0.7)
    assert run.epochs_reached == 3.0


def test_steps_where_the_space_names_them(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, max_steps=5)
    trainer, run = tuned(history, max_steps=9)
    assert trainer.global_step == 5
    assert was_rewritten(run, "max_steps", 9, 5)


def test_accumulation_follows_from_the_global_batch(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, global_batch_size=48)
    trainer, run = tuned(history, space={"accumulate_grad_batches": [1, 3]})
    assert (trainer.accumulate_grad_batches, trainer.train_dataloader.batch_size, trainer.global_step) == (3, 16, 4)
    assert was_rewritten(run, "gradient_accumulation_steps", 1, 3)
    assert run.hparams["global_batch_size"] == 48


def test_the_length_of_training_is_never_touched_without_permission(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, max_epochs=5, accumulate_grad_batches=4, gradient_clip_val=0.1, lr=NEW)
    trainer = fit(MetaHParams(objective="val_acc", history=history))
    assert (trainer.current_epoch, trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (2, 1, None)
    assert trainer.optimizers[0].param_groups[0]["lr"] == NEW


def test_accumulation_has_one_master(history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pin(history, monkeypatch, accumulate_grad_batches=4)
    trainer, _ = tuned(history, GradientAccumulationScheduler({0: 2}), space={"accumulate_grad_batches": [1, 4]})
    assert trainer.accumulate_grad_batches == 2
    assert "accumulate_grad_batches stays 2: GradientAccumulationScheduler sets it" in capsys.readouterr().err.replace("stays 1", "stays 2")


def test_the_trainers_clipping_means_nothing_under_manual_optimization(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Manual(TinyModel):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.manual_backward(nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
            self.optimizers().step()

    pin(history, monkeypatch, gradient_clip_val=0.5)
    trainer, _ = tuned(history, model=Manual())
    assert trainer.gradient_clip_val is None
    assert "gradient_clip_val stays None: this module optimizes manually" in capsys.readouterr().err


class Layered(L.LightningModule):
    """Dropout of every kind, built in ``__init__``."""

    def __init__(self, dropout: float = 0.1, other: float = 0.25) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.recurrent = nn.LSTM(4, 8, num_layers=2, dropout=dropout, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)
        self.body = nn.Sequential(nn.Dropout(dropout), nn.Linear(8, 8), nn.Dropout1d(0.4), nn.Linear(8, 3))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        hidden = self.recurrent(batch[0][:, None, :])[0]
        hidden = self.attention(hidden, hidden, hidden)[0]
        return nn.functional.cross_entropy(self.body(hidden)[:, 0], batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_acc", 1.0)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


def test_dropout_is_written_into_the_layers_that_have_the_old_rate(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, dropout=0.3)
    model = Layered()
    _, run = tuned(history, model=model)
    found = (model.body[0].p, model.recurrent.dropout, model.attention.dropout, model.body[2].p, model.hparams.dropout)
    assert found == (0.3, 0.3, 0.3, 0.4, 0.3)
    assert was_rewritten(run, "dropout", 0.1, 0.3)


def test_dropout_that_only_a_function_uses(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    class Functional(TinyModel):
        def __init__(self, dropout: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Linear(4, 3)
            self.dropout = dropout
            self.used: set[float] = set()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.used.add(self.dropout)
            return nn.functional.cross_entropy(nn.functional.dropout(self.net(batch[0]), self.dropout), batch[1])

    pin(history, monkeypatch, dropout=0.3)
    model = Functional()
    _, run = tuned(history, model=model)
    assert model.used == {0.3}
    assert was_rewritten(run, "dropout", 0.1, 0.3)


def test_one_rate_without_an_attribute_can_be_tuned_and_several_cannot(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Plain(TinyModel):
        def __init__(self, rates: tuple[float, ...] = (0.2,)) -> None:
            super().__init__()
            self.hparams.clear()
            self._hparams_initial.clear()
            self.net = nn.Sequential(nn.Linear(4, 8), *(nn.Dropout(rate) for rate in rates), nn.Linear(8, 3))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    pin(history, monkeypatch, dropout=0.3)
    model = Plain()
    _, run = tuned(history, model=model)
    assert model.net[1].p == 0.3
    assert (run.provenance["dropout"].value, run.provenance["dropout"].requested) == (0.3, 0.2)
    model = Plain((0.1, 0.4))
    tuned(history, model=model)
    assert [model.net[1].p, model.net[2].p] == [0.1, 0.4]
    assert "the layers have several rates (0.1, 0.4) and no hyperparameter says which one is meant" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [{"other": 0.1}, {"attention_dropout": 0.1}, {"scale": 0.5}])
def test_dropout_layers_are_told_from_others_with_the_same_rate_and_may_have_a_share_of_it(
    history: History, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, float]
) -> None:
    class Twins(TinyModel):
        def __init__(self, dropout: float = 0.1, attention_dropout: float = 0.2, other: float = 0.0, scale: float = 1.0) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout * scale), nn.Linear(8, 3))
            self.attention = nn.Dropout(attention_dropout)

    pin(history, monkeypatch, dropout=0.3)
    model = Twins(**arguments)
    _, run = tuned(history, model=model)
    assert (model.net[1].p, model.attention.p) == (0.3 * arguments.get("scale", 1.0), arguments.get("attention_dropout", 0.2))
    assert was_rewritten(run, "dropout", 0.1, 0.3)


class Built(TinyModel):
    """Builds its layers where it is told to."""

    def __init__(self, breadth: int = 4, num_layers: int = 1, where: str = "configure_model") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Identity()
        self.head = None

    def build(self) -> None:
        if self.head is None:
            sizes = [4] + [self.hparams.breadth] * self.hparams.num_layers
            self.net = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)), nn.Linear(sizes[-1], 3))
            self.head = self.net[-1]


class BuiltInModel(Built):
    def configure_model(self) -> None:
        self.build()


class BuiltInSetup(Built):
    def setup(self, stage: str) -> None:
        self.build()


class BuiltInInit(Built):
    def __init__(self, breadth: int = 4, num_layers: int = 1) -> None:
        super().__init__(breadth, num_layers)
        self.save_hyperparameters()
        self.build()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        assert self.hparams.breadth  # a later read does not make it tunable
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("cls", [BuiltInModel, BuiltInSetup])
def test_layers_and_breadths_that_are_built_after_us(history: History, monkeypatch: pytest.MonkeyPatch, cls: type[Built]) -> None:
    pin(history, monkeypatch, breadth=16, num_layers=3)
    model = cls()
    _, run = tuned(history, model=model)
    assert [layer.out_features for layer in model.net] == [16, 16, 16, 3]
    assert was_rewritten(run, "breadth", 4, 16)
    assert was_rewritten(run, "num_layers", 1, 3)
    assert run.n_parameters == sum(p.numel() for p in model.parameters())


def test_layers_that_init_has_built_are_refused_with_the_way_that_works(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(history, monkeypatch, breadth=16)
    model = BuiltInInit()
    tuned(history, model=model)
    assert (model.net[0].out_features, model.hparams.breadth) == (4, 4)
    said = "breadth stays 4: BuiltInInit.__init__ has already run and built with it; build with self.hparams.breadth in configure_model()"
    assert said in capsys.readouterr().err


def test_a_second_fit_of_a_module_does_not_believe_it_could_still_shape_it(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.lightning_metahp.tiny_training import make_trainer

    model = BuiltInModel()
    make_trainer(MetaHParams({"breadth": [4]}, objective="val_acc", history=history)).validate(model, datamodule=TinyData(), verbose=False)
    pin(history, monkeypatch, breadth=16)
    tuned(history, model=model)
    assert (model.net[0].out_features, model.hparams.breadth) == (4, 4)
    assert "breadth stays 4: an earlier fit() or validate() has built this module with it" in capsys.readouterr().err


def test_a_module_without_source_keeps_layers_that_exist(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"TinyModel": TinyModel, "nn": nn, "__name__": "typed_into_a_prompt"}
    exec(  # as in a prompt: inspect finds no source
        "class Typed(TinyModel):\n"
        "    def __init__(self, lr=1e-3, breadth=4):\n"
        "        super().__init__(lr=lr)\n"
        "        self.hparams.update(lr=lr, breadth=breadth)\n"
        "        self.net = nn.Sequential(nn.Linear(4, breadth), nn.Linear(breadth, 3))\n",
        names,
    )
    pin(history, monkeypatch, lr=NEW, breadth=16)
    model = names["Typed"]()
    trainer, _ = tuned(history, model=model)
    assert (trainer.optimizers[0].param_groups[0]["lr"], model.hparams.breadth) == (NEW, 4)
    assert "breadth stays 4: the source of Typed cannot be read and its layers exist already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["precision", "strategy", "devices"])
def test_what_no_callback_can_change_is_not_offered(history: History, name: str) -> None:
    with pytest.raises(UnknownHyperparameterError, match=f"but got '{name}'"):
        fit(MetaHParams({name: [1, 2]}, objective="val_acc", history=history))


def test_an_optimizer_that_lightning_cli_builds_is_refused_and_the_cli_named(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    class Bare(TinyModel):
        def __init__(self) -> None:
            super().__init__()
            self.hparams.clear()

    def run(space: Any) -> None:
        arguments = ["fit", "--optimizer=Adam", "--optimizer.lr=0.01"]
        quiet = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        callbacks = [MetaHParams(space, objective="val_acc", history=history)]
        defaults = {**quiet, "enable_model_summary": False, "callbacks": callbacks}
        LightningCLI(Bare, TinyData, args=arguments, save_config_callback=None, trainer_defaults=defaults)

    with pytest.raises(UnknownHyperparameterError, match="use MetaHPCLI, which rewrites its arguments"):
        run({"lr": [0.1]})
    run(None)
    assert newest(history).hparams["learning_rate"] == 0.01


def test_a_learning_rate_of_the_module_is_refused_where_lightning_cli_builds_the_optimizer(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    pin(history, monkeypatch, lr=NEW)
    quiet = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    callbacks = [MetaHParams({"lr": [NEW]}, objective="val_acc", history=history)]
    defaults = {**quiet, "enable_model_summary": False, "callbacks": callbacks}
    arguments = ["fit", "--optimizer=Adam", "--optimizer.lr=0.01"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LightningCLI(TinyModel, TinyData, args=arguments, save_config_callback=None, trainer_defaults=defaults)
    assert "lr stays 0.001: LightningCLI builds the optimizer itself, before any callback; use MetaHPCLI" in capsys.readouterr().err
