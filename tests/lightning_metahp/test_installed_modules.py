"""Modules of installed packages are read like any other source."""

from __future__ import annotations

import importlib
import py_compile
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lightning_metahp import MetaHParams
from store import History
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import fit

PACKAGE = '''
import torch
from lightning import LightningModule
from torch import nn

class Forecaster(LightningModule):
    """The base class of a library, with a learning rate of its own."""

    def __init__(self, learning_rate=0.01, dropout=0.5, width=8):
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("val_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)

class Net(Forecaster):
    def __init__(self, learning_rate=0.01, dropout=0.5, width=8):
        super().__init__(learning_rate, dropout, width)
        self.save_hyperparameters()
        self.fixed = nn.Dropout(0.5)
        self.net = nn.Sequential(nn.Linear(4, self.hparams.width), nn.Dropout(self.hparams.dropout), nn.Linear(self.hparams.width, 3))
'''


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder that looks like where pip installs, first on the path."""
    folder = tmp_path / "lib" / "python3" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("forecasters", None)


def tuned(history: History, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fit the package's module with pinned values."""
    importlib.invalidate_caches()
    module = importlib.import_module("forecasters").Net()
    pin(history, monkeypatch, learning_rate=0.3, dropout=0.2)
    space = {"learning_rate": [0.01, 0.3], "dropout": [0.2, 0.5]}
    fit(MetaHParams(space, objective="val_loss", history=history), model=module, max_epochs=1, limit_train_batches=1)
    return module


def test_a_module_in_site_packages_is_tuned_and_so_is_what_its_base_class_reads(
    site_packages: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site_packages / "forecasters.py").write_text(PACKAGE)
    module = tuned(history, monkeypatch)
    found = newest(history).provenance
    assert (found["learning_rate"].observed, found["dropout"].observed) == (0.3, 0.2)
    assert (module.net[1].p, module.fixed.p) == (0.2, 0.5)


def test_a_project_installed_editable_is_tuned(
    site_packages: Path, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project" / "src"
    project.mkdir(parents=True)
    (project / "forecasters.py").write_text(PACKAGE)
    (site_packages / "__editable__.forecasters.pth").write_text(str(project))
    monkeypatch.syspath_prepend(str(project))  # what the .pth file does when Python starts
    assert tuned(history, monkeypatch).net[1].p == 0.2


def test_a_zipped_package_is_tuned(site_packages: Path, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(site_packages / "forecasters.zip", "w") as archive:
        archive.writestr("forecasters.py", PACKAGE)
    monkeypatch.syspath_prepend(str(site_packages / "forecasters.zip"))
    assert tuned(history, monkeypatch).net[1].p == 0.2
    assert newest(history).provenance["learning_rate"].observed == 0.3


def test_a_package_without_source_is_tuned_as_far_as_can_be_known_and_shapes_are_refused_truly(
    site_packages: Path, history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = site_packages / "forecasters.py"
    source.write_text(PACKAGE)
    py_compile.compile(str(source), cfile=str(site_packages / "forecasters.pyc"))
    source.unlink()
    module = tuned(history, monkeypatch)
    assert (module.net[1].p, module.fixed.p) == (0.2, 0.5)
    assert newest(history).provenance["learning_rate"].observed == 0.3
    pin(history, monkeypatch, width=4)
    other = type(module)()
    fit(MetaHParams({"width": [4, 8]}, objective="val_loss", history=history), model=other, max_epochs=1, limit_train_batches=1)
    assert "width stays 8: the source of Net cannot be read and its layers exist already" in capsys.readouterr().err
    assert isinstance(other.net[0], nn.Linear)
