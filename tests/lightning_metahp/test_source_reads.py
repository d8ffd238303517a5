"""Which hyperparameters a module still reads after ``__init__``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from lightning_metahp.source_reads import later_reads


class Everything(L.LightningModule):
    def __init__(self, lr: float = 1.0, width: int = 2, p: float = 0.1, momentum: float = 0.0, alias: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.other_name = alias
        self.build()

    def build(self) -> None:
        self.layer = torch.nn.Linear(self.hparams.width, 1)

    def forward(self, x: Any) -> Any:
        return torch.nn.functional.dropout(self.layer(x), self.hparams["p"]) * self.other_name

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).sum()

    def configure_optimizers(self) -> Any:
        return self.make_optimizer()

    def make_optimizer(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=self.hparams.get("momentum"))


class Child(Everything):
    """Inherits what its base reads."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Overriding(Everything):
    """What its base's ``configure_optimizers`` read is read no more."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)

    @property
    def rate(self) -> float:
        return float(self._rate)

    @rate.setter
    def rate(self, value: float) -> None:
        self._rate = value * self.hparams.p


class Extending(Everything):
    """Its base's ``configure_optimizers`` runs as well."""

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()


class HandsOn(L.LightningModule):
    def __init__(self, lr: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()

    def configure_optimizers(self) -> Any:
        return SimpleNamespace(**self.hparams)


class GivesItselfAway(L.LightningModule):
    def __init__(self, lr: float = 1.0) -> None:
        super().__init__()

    def configure_optimizers(self) -> Any:
        return str(self)


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 1, fold: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        self.part = self.hparams.fold

    def train_dataloader(self) -> Any:
        return [self.hparams.batch_size]


@pytest.mark.parametrize("name", ["lr", "momentum", "p", "alias"])
def test_what_a_later_method_reads_is_found(name: str) -> None:
    assert later_reads(Everything()).reads(name)


def test_what_only_a_method_called_by_init_reads_is_too_late() -> None:
    assert not later_reads(Everything()).reads("width")


def test_an_inherited_method_counts() -> None:
    reads = later_reads(Child())
    assert reads.reads("lr")
    assert reads.reads("p")
    assert not reads.reads("width")


def test_an_overridden_method_counts_where_it_is_called() -> None:
    assert later_reads(Extending()).reads("lr")
    reads = later_reads(Overriding())
    assert reads.reads("_rate")
    assert reads.reads("p")


def test_an_overridden_hook_does_not_count() -> None:
    class Base(L.LightningModule):
        def __init__(self, lr: float = 1.0) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.rate = lr / 2

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

    class Derived(Base):
        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.rate)

    assert later_reads(Base()).reads("lr")
    assert not later_reads(Derived()).reads("lr")


def test_an_attribute_that_holds_an_argument_unchanged_is_an_alias() -> None:
    assert later_reads(Everything()).aliases == {"alias": frozenset({"other_name"})}


@pytest.mark.parametrize("cls", [HandsOn, GivesItselfAway])
def test_hparams_or_self_handed_on_as_a_whole_may_be_read(cls: type[L.LightningModule]) -> None:
    assert later_reads(cls()).reads("lr")


def test_a_datamodules_setup_has_already_run() -> None:
    reads = later_reads(Data())
    assert reads.reads("batch_size")
    assert not reads.reads("fold")
    assert reads.where == "Data.__init__ or setup"


def test_a_class_without_source_may_read_anything() -> None:
    made = type("Made", (L.LightningModule,), {"__module__": "nowhere"})
    assert later_reads(made()).reads("whatever")


class Positional(L.LightningModule):
    def __init__(self, hidden, /, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, hidden)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def test_an_argument_that_can_only_be_given_by_position_is_seen_in_use():
    reads = later_reads(Positional(3))
    assert "hidden" in reads.used
    assert "lr" not in reads.used


class OmegaDict(dict[str, Any]):
    __getattr__ = dict.__getitem__


class Paths(L.LightningModule):
    def __init__(self, cfg: Any, widths: Any, key: str) -> None:
        super().__init__()
        self.cfg = cfg
        self.rate = self.cfg.optim["lr"]
        self.first = widths[0]
        self.chosen = cfg.get(key)

    def configure_optimizers(self) -> Any:
        part = self.cfg.get("schedule")
        assert isinstance(self.cfg, dict)
        return self.rate, part.steps, self.hparams["cfg"].model.names[self.global_step], self.cfg.data.items(), self.first


@pytest.mark.parametrize(
    ("path", "is_read"),
    [
        ("cfg.optim.lr", True),
        ("cfg.optim.wd", False),
        ("cfg.schedule.steps", True),
        ("cfg.model.names.a", True),
        ("cfg.model.dropout", False),
        ("cfg.data.batch_size", True),
        ("cfg", True),
        ("widths", False),
    ],
)
def test_what_is_read_of_an_argument_is_known_by_its_path(path: str, is_read: bool) -> None:
    assert later_reads(Paths(OmegaDict(optim={"lr": 0.1}, x=1), [1], "x")).reads_path(path) is is_read
