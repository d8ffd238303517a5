import linecache
import sys
import textwrap
import types

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


def test_the_cell_of_a_notebook_has_no_file_but_its_source_is_read(monkeypatch):
    main = types.ModuleType("__main__")
    source = textwrap.dedent(
        """
        import lightning as L
        import torch
        class Net(L.LightningModule):
            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        """
    )
    cell = "/tmp/ipykernel_1/123.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setitem(linecache.cache, cell, (len(source), None, source.splitlines(True), cell))
    exec(compile(source, cell, "exec"), vars(main))
    assert written_optimizer(main.Net()) == {"optimizer": "SGD", "momentum": 0.9}


def test_a_method_that_was_put_in_is_read_where_it_was_written():
    def configure_optimizers(self):
        return torch.optim.RMSprop(self.parameters())

    made = type("Made", (L.LightningModule,), {"configure_optimizers": configure_optimizers})
    assert written_optimizer(made()) == {"optimizer": "RMSprop"}

    class Patched(Adam):
        pass

    Patched.configure_optimizers = configure_optimizers
    assert written_optimizer(Patched()) == {"optimizer": "RMSprop"}


def test_an_optimizer_that_is_fetched_in_a_roundabout_way_is_found():
    class Roundabout(Base):
        def configure_optimizers(self):
            return __import__("torch").optim.Adam(self.parameters())

    assert written_optimizer(Roundabout()) == {"optimizer": "Adam"}
