"""With no run of one's own: what the starter history does for a Lightning run, and where it keeps its hands off."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_metahp import MetaHParams, MetaHPCallback
from store import History
from store.records import Source


class Small(L.LightningModule):
    def __init__(self, lr=1e-5, dropout=0.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch):
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class FineTuned(Small):
    def __init__(self, lr=1e-5, backbone="resnet18"):
        super().__init__(lr)
        self.save_hyperparameters()


def fit(module, path, **arguments):
    data = TensorDataset(torch.randn(64, 6), torch.randn(64, 1))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks = [MetaHPCallback("val_loss", history=path), MetaHParams(**arguments)]
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", callbacks=callbacks, **quiet)
    trainer.fit(module, DataLoader(data, 16), DataLoader(data, 64))
    with History(path) as history:
        return history.runs()[0], trainer


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.delenv("METAHP_STARTER")


def test_the_first_run_starts_with_a_useful_learning_rate_and_says_where_it_comes_from(tmp_path, capsys):
    run, trainer = fit(Small(), tmp_path / "history.db")
    said = "".join(capsys.readouterr())
    assert "from the starter history, not from your runs" in said
    assert run.provenance["learning_rate"].source is Source.METAHP
    assert run.hparams["learning_rate"] > 1e-4
    assert trainer.optimizers[0].param_groups[0]["lr"] == run.hparams["learning_rate"]
    with History(tmp_path / "history.db") as history:
        stored = history.recommendation(run.recommendation_id)["recommendation"]
    assert stored["evidence"]["n_starter_runs"] > 0


def test_nothing_is_drawn_from_small_networks_for_a_fine_tuned_one(tmp_path, capsys):
    run, _ = fit(FineTuned(), tmp_path / "history.db", space={"lr": [1e-5, 1e-3, 1e-1]})
    assert run.hparams["learning_rate"] == 1e-5
    assert "starts from trained weights (as 'backbone' says)" in "".join(capsys.readouterr())


def test_switched_off_it_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("METAHP_STARTER", "0")
    run, _ = fit(Small(), tmp_path / "history.db")
    assert run.hparams["learning_rate"] == 1e-5
    assert "starter" not in "".join(capsys.readouterr())
