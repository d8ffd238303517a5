import lightning as L
import pytest
import torch
from torch import optim
from torch.optim import SGD, AdamW

from lightning_metahp.written_optimizer import written_optimizer


class Base(L.LightningModule):
    def __init__(self, lr=0.1, momentum=0.5):
        super().__init__()
        self.save_hyperparameters()


class Adam(Base):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class WithSchedule(Base):
    def configure_optimizers(self):
        optimizer = optim.RMSprop(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [optim.lr_scheduler.StepLR(optimizer, 1)]


class ByName(Base):
    def configure_optimizers(self):
        return AdamW(self.parameters())


class Heavy(Base):
    def configure_optimizers(self):
        return SGD(self.parameters(), lr=0.1, momentum=0.9)


class Light(Base):
    def configure_optimizers(self):
        return SGD(self.parameters(), lr=0.1)


class Tuned(Base):
    def configure_optimizers(self):
        return SGD(self.parameters(), lr=0.1, momentum=self.hparams.momentum)


class Mine(torch.optim.SGD):
    pass


class OwnClass(Base):
    def configure_optimizers(self):
        return Mine(self.parameters(), lr=0.1)


class Two(Base):
    def configure_optimizers(self):
        return SGD(self.parameters(), lr=0.1), AdamW(self.parameters())


class Chosen(Base):
    def configure_optimizers(self):
        return getattr(torch.optim, "Ad" + "am")(self.parameters())


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Adam, {"optimizer": "Adam"}),
        (WithSchedule, {"optimizer": "RMSprop"}),
        (ByName, {"optimizer": "AdamW"}),
        (Heavy, {"optimizer": "SGD", "momentum": 0.9}),
        (Light, {"optimizer": "SGD", "momentum": 0.0}),
        (Tuned, {"optimizer": "SGD"}),
        (OwnClass, {"optimizer": "Mine"}),
        (Two, {}),
        (Chosen, {}),
        (Base, {}),
    ],
)
def test_the_optimizer_is_read_where_it_is_written_in_plain_words(module, expected):
    assert written_optimizer(module()) == expected


def test_a_class_without_source_says_nothing():
    made = type("Made", (Base,), {})
    exec("def configure_optimizers(self):\n    return AdamW(self.parameters())", space := {"AdamW": AdamW})
    made.configure_optimizers = space["configure_optimizers"]
    assert written_optimizer(made()) == {}
