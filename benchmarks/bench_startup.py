"""What ``MetaHParams`` adds to the start of a training: ``python -m benchmarks.bench_startup``.

Each figure comes from a fresh process, as a user's run is one: the time from entering ``Callback.setup`` to leaving it, importing torch
and lightning not counted, everything that is ours to import counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

N_RUNS, N_TASKS = 10_000, 100
LIMITS_S = {"10,000 runs, model up to date": 0.5, "no history": 0.02}

_CHILD = """
import sys, time, warnings
warnings.simplefilter("ignore")
import lightning as L, torch
from torch.utils.data import DataLoader, TensorDataset

class Data(L.LightningDataModule):
    def __init__(self, batch_size=16):
        super().__init__()
        self.save_hyperparameters()
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(96, 4), torch.zeros(96).long()), batch_size=self.hparams.batch_size)

class Model(L.LightningModule):
    def __init__(self, lr=1e-3, dropout=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 3))
    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

started = time.perf_counter()
from lightning_metahp import MetaHParams
params = MetaHParams({"lr": [1e-4, 1e-3, 1e-2, 1e-1], "batch_size": [16, 32, 64]}, objective="val_acc", task="task 0", history=sys.argv[1])
made = time.perf_counter() - started

class Timed(type(params)):
    def setup(self, trainer, module, stage):
        before = time.perf_counter()
        profile = None
        if len(sys.argv) > 2:
            import cProfile
            profile = cProfile.Profile()
            profile.enable()
        super().setup(trainer, module, stage)
        if profile is not None:
            import pstats
            profile.disable()
            pstats.Stats(profile, stream=sys.stdout).sort_stats("cumulative").print_stats(45)
        print("took", made + time.perf_counter() - before)

params.__class__ = Timed
trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                    enable_model_summary=False, callbacks=[params])
trainer.fit(Model(), datamodule=Data())
"""


def fill(path: Path) -> None:
    """Write a history of ``N_RUNS`` runs of ``N_TASKS`` tasks, and fit its meta-model."""
    import random

    from metamodel import refit
    from store import History
    from store.bulk import Curve, FinishedRun

    chance = random.Random(0)
    with History(path) as history:
        runs = []
        for index in range(N_RUNS):
            rate, size = 10 ** chance.uniform(-4, -1), chance.choice([16, 32, 64])
            hparams = {"lr": rate, "batch_size": size, "dropout": chance.random() / 2, "weight_decay": 10 ** chance.uniform(-6, -2)}
            value = 0.9 - abs(rate - 0.01) - size / 1000 + chance.gauss(0, 0.01)
            task = f"task {index % N_TASKS}"
            runs.append(FinishedRun(f"run{index:06d}", task, hparams, "val_acc", "max", {"val_acc": Curve((0,), (value,))}))
        history.add_finished_runs(runs)
        refit(history)


def measure(history: Path, rounds: int) -> list[float]:
    """Return the seconds of each round, one process each."""
    found = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", _CHILD, str(history)], capture_output=True, text=True, env={**os.environ}, check=True)
        found.append(float(done.stdout.split("took")[1]))
    return found


def main() -> None:
    """Measure, print, and exit with 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where the time goes, for the large history")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.db"
        fill(large)
        if options.profile:
            subprocess.run([sys.executable, "-c", _CHILD, str(large), "profile"], check=True)
        cases = {"10,000 runs, model up to date": large, "no history": Path(folder) / "none" / "history.db"}
        is_within = True
        for name, path in cases.items():
            times = measure(path, options.rounds)
            print(f"{name}: median {statistics.median(times):.3f} s, best {min(times):.3f} s (limit {LIMITS_S[name]} s)")
            is_within &= statistics.median(times) < LIMITS_S[name]
    sys.exit(not is_within)


if __name__ == "__main__":
    main()
