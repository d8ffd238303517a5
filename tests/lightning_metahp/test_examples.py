"""The example as users run it: on the data that is there, and on larger images where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.lightning.image_classifier import main
from store import History, RunStatus, Source
from tests.lightning_metahp.pinning import pin
from tests.lightning_metahp.tiny_training import only_run

DATASETS = Path(os.environ.get("METAHP_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "datasets"


@pytest.mark.parametrize("is_large", [False, True], ids=["digits", "larger images"])
def test_the_example_trains_with_layers_dropout_rate_and_batch_of_a_recommendation(
    is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = DATASETS / "cifar10_jpeg.npz"
    if is_large and not archive.exists():
        pytest.skip(f"{archive.name} is not here; set METAHP_SHARED_DATA to the folder that holds datasets/{archive.name}")
    with History(tmp_path / "h.db") as history:
        pinned = pin(history, monkeypatch, lr=0.01, batch_size=64, dropout=0.2, num_layers=3)
    data = ["--data", str(archive)] if is_large else []
    trainer = main(["--samples", "120", "--epochs", "1", "--history", str(tmp_path / "h.db"), *data])
    with History(tmp_path / "h.db") as history:
        run = only_run(history)
    tuned = {"learning_rate": 0.01, "batch_size": 64, "dropout": 0.2, "num_layers": 3}
    assert (run.status, run.recommendation_id, run.objective) == (RunStatus.COMPLETED, pinned, "val_acc")
    assert {name: run.hparams[name] for name in tuned} == tuned
    assert {run.provenance[name].source for name in tuned} == {Source.METAHP}
    layers = [type(layer).__name__ for layer in trainer.lightning_module.net]
    assert (layers.count("Conv2d"), trainer.train_dataloader.batch_size) == (3, 64)
    assert f"metahp show {run.id}" in capsys.readouterr().out
