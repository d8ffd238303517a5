"""Two processes on the CPU: rank zero decides and writes, both do the same, and one row is left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from store import History, Source
from tests.lightning_metahp.pinning import pin

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import atexit
import sys
import lightning as L
import torch
from lightning.pytorch import Callback
from lightning_metahp import MetaHParams, MetaHPCallback
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, make_trainer

class Tell(Callback):
    def on_train_start(self, trainer, module):
        # Lightning does so for NCCL only; threads of a gloo group that are still there when Python ends may abort the process.
        atexit.register(torch.distributed.destroy_process_group)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        line = f"{trainer.global_rank} {rate} {trainer.train_dataloader.batch_size} {module.net[2].p} {module.hparams.lr}"
        open(f"rank{trainer.global_rank}.txt", "a").write(line)

if __name__ == "__main__":
    strategy = sys.argv[1]
    different = len(sys.argv) > 2
    import os
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    model = TinyModel(lr=0.5) if different and rank else TinyModel()
    space = {"lr": [1e-3, 0.03], "batch_size": [8, 16, 32], "dropout": [0.1, 0.3]}
    params = MetaHParams(space, objective="val_acc")
    trainer = make_trainer(params, MetaHPCallback("val_acc"), Tell(), strategy=strategy, devices=2, max_epochs=1)
    trainer.fit(model, datamodule=TinyData())
"""


def launch(
    folder: Path, strategy: str, *, is_torchrun: bool = False, extra: tuple[str, ...] = (), code: str = SCRIPT
) -> subprocess.CompletedProcess[str]:
    script = folder / "train.py"
    script.write_text(code)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    start = [sys.executable]
    if is_torchrun:
        start += ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    command = [*start, str(script), strategy, *extra]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


@pytest.mark.parametrize(
    ("strategy", "is_torchrun"), [("ddp", False), ("ddp_spawn", False), ("ddp", True)], ids=["ddp", "spawn", "torchrun"]
)
def test_both_processes_train_with_what_rank_zero_decided_and_leave_one_row(
    isolated_history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, is_torchrun: bool
) -> None:
    with History(isolated_history) as history:
        pinned = pin(history, monkeypatch, lr=0.03, batch_size=32, dropout=0.3)
    done = launch(tmp_path, strategy, is_torchrun=is_torchrun)
    assert done.returncode == 0, done.stderr[-3000:]
    # A global batch of 32 is 16 on each of the two.
    expected = [f"{rank} 0.03 16 0.3 0.03" for rank in (0, 1)]
    assert [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)] == expected
    assert done.stderr.count("metahp: lr 0.001 -> 0.03") == 1, "only rank zero speaks"
    with History(isolated_history) as history:
        (run,) = history.runs()
    assert (run.recommendation_id, run.hparams["global_batch_size"], run.hparams["batch_size"]) == (pinned, 32, 16)
    assert run.provenance["learning_rate"].source is Source.METAHP


def test_processes_that_came_to_different_values_are_all_left_as_they_were(
    isolated_history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History(isolated_history) as history:
        pin(history, monkeypatch, lr=0.03, batch_size=32, dropout=0.3)
    done = launch(tmp_path, "ddp", extra=("different",))
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"rank{rank}.txt").read_text().split()[1:4] for rank in (0, 1)] == [["0.001", "16", "0.1"], ["0.5", "16", "0.1"]]
    assert "ranks computed different values" in done.stderr
    with History(isolated_history) as history:
        (run,) = history.runs()
    assert (run.recommendation_id, run.hparams["learning_rate"]) == (None, 0.001)


CLI_SCRIPT = """
import atexit
import torch
from lightning.pytorch import Callback
from lightning_metahp import MetaHPCLI
from tests.lightning_metahp.test_cli import Deep
from tests.lightning_metahp.tiny_training import TinyData

class Tell(Callback):
    def on_train_start(self, trainer, module):
        # Lightning does so for NCCL only; threads of a gloo group that are still there when Python ends may abort the process.
        atexit.register(torch.distributed.destroy_process_group)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        line = f"{trainer.global_rank} {rate} {trainer.train_dataloader.batch_size} {len(module.net)} {module.net[0].p}"
        open(f"rank{trainer.global_rank}.txt", "a").write(line)

if __name__ == "__main__":
    space = {"lr": [1e-3, 0.03], "batch_size": [8, 16, 32], "num_layers": [1, 3]}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    fixed = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "max_epochs": 1, "callbacks": [Tell()], **quiet}
    MetaHPCLI(Deep, TinyData, space=space, objective="val_acc", trainer_defaults=fixed, save_config_callback=None)
"""


@pytest.mark.parametrize("is_torchrun", [False, True], ids=["ddp", "torchrun"])
def test_a_cli_rewrites_the_configuration_of_every_process_and_leaves_one_row(
    isolated_history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_torchrun: bool
) -> None:
    pytest.importorskip("jsonargparse")
    with History(isolated_history) as history:
        pinned = pin(history, monkeypatch, lr=0.03, batch_size=32, num_layers=3)
    done = launch(tmp_path, "fit", is_torchrun=is_torchrun, extra=("--optimizer=Adam",), code=CLI_SCRIPT)
    assert done.returncode == 0, done.stderr[-3000:]
    # A global batch of 32 is 16 on each; a dropout, three layers and the head.
    assert [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)] == [f"{rank} 0.03 16 5 0.1" for rank in (0, 1)]
    assert done.stderr.count("metahp: lr 0.001 -> 0.03") == 1, "only rank zero speaks"
    with History(isolated_history) as history:
        (run,) = history.runs()
    assert (run.recommendation_id, run.hparams["global_batch_size"], run.hparams["num_layers"]) == (pinned, 32, 3)
