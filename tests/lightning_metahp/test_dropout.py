"""Dropout is written into the layers that the hyperparameter made, and into no other."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_metahp import MetaHParams
from store import History
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import TinyModel, fit

BUILT: list[str] = []


class Base(TinyModel):
    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        for kept in (self.hparams, self._hparams_initial):
            kept.clear()
        self.save_hyperparameters()
        self.net = nn.Linear(4, 3)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def tuned(history: History, monkeypatch: pytest.MonkeyPatch, model: Any, rate: float = 0.2) -> Any:
    """Fit with a pinned rate."""
    pin(history, monkeypatch, dropout=rate)
    fit(MetaHParams({"dropout": [0.0, 0.2, 0.5]}, objective="val_acc", history=history), model=model, max_epochs=1, limit_train_batches=1)
    return model


class Coincidence(Base):
    """Somebody else's rate is the same."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(dropout)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5)
        self.head = nn.Dropout(dropout)
        self.halved = nn.Dropout(dropout / 2)
        self.rnn = nn.LSTM(2, 2, num_layers=2, dropout=dropout)
        self.attention = nn.MultiheadAttention(4, 2, dropout=dropout)
        self.keep_probability = 1 - dropout

    def rates(self) -> tuple[float, ...]:
        mine = (self.head.p, self.halved.p, self.rnn.dropout, self.attention.dropout, self.keep_probability)
        return (*mine, self.encoder.dropout1.p, self.encoder.self_attn.dropout)


@pytest.mark.parametrize("rate", [0.2, 0.0])
def test_only_layers_that_the_rate_made_are_written_and_derived_ones_as_they_would_be(
    history: History, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    model = tuned(history, monkeypatch, Coincidence(), rate)
    assert model.rates() == Coincidence(rate).rates()
    found = newest(history).provenance["dropout"]
    assert (found.value, found.observed, found.requested) == (rate, rate, 0.5)


def test_random_states_files_and_counters_are_those_of_one_building(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Noisy(Base):
        def __init__(self, dropout: float = 0.5) -> None:
            super().__init__(dropout)
            print("built")
            self.start = (random.random(), np.random.rand(), float(torch.rand(1)))
            self.head = nn.Dropout(dropout)

    states: list[Any] = []
    for rate in (None, 0.2):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        model = Noisy()
        if rate is not None:
            tuned(history, monkeypatch, model, rate)
            assert model.head.p == 0.2
        else:
            monkeypatch.setenv("METAHP", "off")
            fit(model=model, max_epochs=1, limit_train_batches=1)
            monkeypatch.delenv("METAHP")
        states.append((random.random(), np.random.rand(), float(torch.rand(1)), capsys.readouterr().out.count("built")))
    assert states[0] == states[1]


class Writes(Base):
    def __init__(self, folder: str, dropout: float = 0.5) -> None:
        super().__init__(dropout)
        self.save_hyperparameters()
        self.head = nn.Dropout(dropout)
        with open(Path(folder) / "built.txt", "a") as file:
            file.write("built\n")


class Counts(Base):
    count = 0

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(dropout)
        self.head = nn.Dropout(dropout)
        Counts.count += 1


class Registers(Base):
    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(dropout)
        self.head = nn.Dropout(dropout)
        BUILT.append("built")


class Sleeps(Base):
    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(dropout)
        self.head = nn.Dropout(dropout)
        self.sum = sum(sum(range(1000)) for _ in range(200_000 if BUILT == ["slow"] else 1))


class Forgets(TinyModel):
    def __init__(self, encoder: Any, dropout: float = 0.5) -> None:
        super().__init__()
        for kept in (self.hparams, self._hparams_initial):
            kept.clear()
        self.save_hyperparameters(ignore=["encoder"])
        self.net = nn.Sequential(encoder, nn.Dropout(dropout))

    configure_optimizers = Base.configure_optimizers


class Keeps(Base):
    """Dropout as a function whose rate is bound."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(dropout)
        self.drop = functools.partial(nn.functional.dropout, p=dropout)


class Changed(Base):
    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(dropout)
        self.head = nn.Dropout(dropout)


def changed() -> Base:
    model = Changed()
    model.head.p = 0.3
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Counts, "Counts.__init__ changes what is not its own"),
        (Registers, "Registers.__init__ changes what is not its own"),
        (lambda: Forgets(nn.Linear(4, 3)), "Forgets keeps no encoder"),
        (Keeps, "drop keeps what was made of it"),
        (changed, "head.p is not as __init__ makes it"),
    ],
    ids=["counter", "registry", "forgotten", "bound", "changed"],
)
def test_what_cannot_be_known_is_refused_with_the_reason(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make: Any, reason: str
) -> None:
    monkeypatch.setattr("tests.lightning_metahp.test_dropout.BUILT", [])
    monkeypatch.setattr(Counts, "count", 0)
    model = make()
    built = (Counts.count, len(BUILT))
    before = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    tuned(history, monkeypatch, model)
    said = capsys.readouterr().err
    assert "dropout stays 0.5: which layers it made cannot be known" in said
    assert reason in said
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == before
    assert (Counts.count, len(BUILT)) == built


def test_a_module_that_writes_files_is_not_built_again(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tuned(history, monkeypatch, Writes(str(tmp_path)))
    assert "Writes.__init__ calls open()" in capsys.readouterr().err
    assert (tmp_path / "built.txt").read_text() == "built\n"


def test_a_module_that_takes_long_is_not_built_again(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Sleeps()
    monkeypatch.setattr("lightning_metahp.second_building.MAX_BUILDING_S", 0.05)
    monkeypatch.setattr("tests.lightning_metahp.test_dropout.BUILT", ["slow"])
    tuned(history, monkeypatch, model)
    assert "Sleeps.__init__ takes too long to be repeated" in capsys.readouterr().err


def test_layers_that_are_left_out_without_dropout_get_a_rate_of_zero(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spares(Base):
        def __init__(self, dropout: float = 0.5) -> None:
            super().__init__(dropout)
            self.net = nn.Sequential(nn.Linear(4, 3), *([nn.Dropout(dropout)] if dropout else []))

    assert tuned(history, monkeypatch, Spares(), 0.0).net[1].p == 0.0


def test_a_module_that_looks_at_a_weight_and_one_that_is_given_a_network_are_built_again_all_the_same(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Looks(Base):
        def __init__(self, net: nn.Module, dropout: float = 0.5) -> None:
            super().__init__(dropout)
            self.save_hyperparameters(logger=False)
            self.given = net
            self.given[1] = nn.Identity()
            self.heads = nn.ModuleList(nn.Dropout(rate) for rate in torch.linspace(dropout / 2, dropout, 2).tolist())

    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Dropout(0.5))
    model = Looks(net)
    made = net[1]
    tuned(history, monkeypatch, model)
    assert [head.p for head in model.heads] == pytest.approx([0.1, 0.2])
    assert (model.given[1] is made, model.given[2].p, net[0].weight.device.type) == (True, 0.5, "cpu")


def test_the_next_fit_starts_from_the_users_own_rate(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tuned(history, monkeypatch, Coincidence())
    monkeypatch.delenv("METAHP_PIN")
    fit(MetaHParams(objective="val_acc", history=history, keep=("dropout",)), model=model, max_epochs=1, limit_train_batches=1)
    assert model.rates() == Coincidence().rates()
