"""CONTRIBUTING's walks, walked: what it says one has to touch is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metahp import MetaHParams
from metahp_tuning import suggest
from store import History, hyperparameters, names
from store.hyperparameters import Hyperparameter, Role, Scale
from tests.lightning_metahp.tiny_training import TinyModel, fit

ROW = Hyperparameter(
    "noise_scale", Role.MODEL, Scale.LOG, aliases=("noise", "sigma_noise"), conservative_in=frozenset({"*"}), keeps_shapes=True
)


@pytest.fixture
def row_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry with one more row, as if it stood in the file."""
    monkeypatch.setattr(hyperparameters, "REGISTRY", (*hyperparameters.REGISTRY, ROW))
    monkeypatch.setitem(hyperparameters._BY_NAME, ROW.name, ROW)
    for alias in (ROW.name, *ROW.aliases):
        monkeypatch.setitem(hyperparameters.BY_ALIAS, alias, ROW.name)
    _forget_registry()
    yield
    monkeypatch.undo()
    _forget_registry()


def _forget_registry() -> None:
    for function in (*vars(hyperparameters).values(), names.canonical_name):
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def record(history: Path, name: str) -> None:
    """Eight runs in which the hyperparameter decides all: best at 0.1."""
    with History(history) as opened:
        for value in (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0):
            with opened.start_run(task="walk", hparams={name: value}, objective="val_acc", direction="max") as run:
                run.log(val_acc=1 / (1 + abs(torch.log10(torch.tensor(value)).item() + 1)))


def test_one_row_of_the_registry_makes_a_hyperparameter_of_every_host(row_in_the_registry: None, tmp_path: Path) -> None:
    record(tmp_path / "history.db", "sigma_noise")
    # Another spelling, no space: the row says that it may change.
    suggestion = suggest({"noise": 10.0}, task="walk", objective="val_acc", direction="max", history=tmp_path / "history.db")
    assert suggestion["noise"] == pytest.approx(0.1, rel=5)
    assert suggestion["noise"] < 1

    class Noisy(TinyModel):
        def __init__(self, noise: float = 10.0) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.seen: list[float] = []

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.seen.append(self.hparams.noise)

    tuner = MetaHParams(task="walk", objective="val_acc", direction="max", history=tmp_path / "history.db")
    module = Noisy()
    fit(tuner, model=module)
    assert set(module.seen) == {suggestion["noise"]}
