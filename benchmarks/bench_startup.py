"""What ``MetaHParams`` adds to the start of a training: ``python -m benchmarks.bench_startup``.

Each figure comes from a fresh process, as a user's run is one: from importing ``MetaHParams`` to leaving its ``Callback.setup``, importing
torch and lightning not counted, everything that is ours to import counted. Beside the time on the clock stands that of the process, which
a busy machine lengthens less. ``--write`` puts the table into ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.page import markdown_table, measured_on, write_section

N_RUNS, N_TASKS = 10_000, 100
LIMITS_S = {
    "10,000 runs, model up to date": 0.5,
    "10,000 runs, without a space": 0.5,
    "no history": 0.06,
    "no history, without a space": 0.06,
}
FIT_S = 20.0
"""For the meta-model of the large history; how well it is fitted makes no difference here."""
DEFAULTS: dict[str, Any] = {
    **{"max_epochs": 10, "max_steps": -1, "accumulate_grad_batches": 1, "gradient_clip_val": None, "limit_train_batches": 1.0, "seed": 0},
    **{"accelerator": "cpu", "devices": 1, "precision": "32-true", "strategy": "SingleDeviceStrategy", "num_workers": 0},
    **{"optimizer": "Adam", "optimizer.betas": (0.9, 0.999), "optimizer.eps": 1e-8, "optimizer.amsgrad": False, "num_layers": 2},
}
"""What a run of Lightning records beside what was tuned."""

_CHILD = """
import sys, time, warnings
warnings.simplefilter("ignore")
began, began_busy = time.perf_counter(), time.process_time()
import lightning as L, torch
from torch.utils.data import DataLoader, TensorDataset
hosts, hosts_busy = time.perf_counter() - began, time.process_time() - began_busy

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

started, busy = time.perf_counter(), time.process_time()
from lightning_metahp import MetaHParams
space = {"lr": [1e-4, 1e-3, 1e-2, 1e-1], "batch_size": [16, 32, 64]} if sys.argv[2] == "space" else None
params = MetaHParams(space, objective="val_acc", task="task 0", history=sys.argv[1])
made, made_busy = time.perf_counter() - started, time.process_time() - busy

class Timed(type(params)):
    def setup(self, trainer, module, stage):
        before, before_busy = time.perf_counter(), time.process_time()
        profile = None
        if len(sys.argv) > 3:
            import cProfile
            profile = cProfile.Profile()
            profile.enable()
        super().setup(trainer, module, stage)
        if profile is not None:
            import pstats
            profile.disable()
            pstats.Stats(profile, stream=sys.stdout).sort_stats("cumulative").print_stats(45)
        print("took", made + time.perf_counter() - before, made_busy + time.process_time() - before_busy, hosts, hosts_busy)

params.__class__ = Timed
trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                    enable_model_summary=False, callbacks=[params])
trainer.fit(Model(), datamodule=Data())
"""


def fill(path: Path) -> None:
    """Write a history of ``N_RUNS`` runs of ``N_TASKS`` tasks, and fit its meta-model."""
    import random

    from metamodel.data.learning_tables import learning_table
    from metamodel.fitting import active_model
    from store import History
    from store.sqlite.bulk import Curve, FinishedRun

    chance = random.Random(0)
    with History(path) as history:
        runs = []
        for index in range(N_RUNS):
            rate, size = 10 ** chance.uniform(-4, -1), chance.choice([16, 32, 64])
            hparams = {"lr": rate, "batch_size": size, "dropout": chance.random() / 2, "weight_decay": 10 ** chance.uniform(-6, -2)}
            hparams |= {"optimizer.lr": rate, "global_batch_size": size, **DEFAULTS}
            value = 0.9 - abs(rate - 0.01) - size / 1000 + chance.gauss(0, 0.01)
            task = f"task {index % N_TASKS}"
            runs.append(FinishedRun(f"run{index:06d}", task, hparams, "val_acc", "max", {"val_acc": Curve((0,), (value,))}))
        history.add_finished_runs(runs)
        active_model(history, learning_table(history), FIT_S)


def measure(script: Path, history: Path, space: str, rounds: int, environment: Mapping[str, str]) -> list[tuple[float, ...]]:
    """Return the seconds of each round, one process each; a warm-up goes before them.

    Args:
        script: The training.
        history: Its history; where it does not exist, every process has a new one.
        space: ``space`` to name hyperparameters, ``none`` to leave the choice to ``MetaHParams``.
        rounds: How many processes.
        environment: Added to that of this process.

    Returns:
        For each round: by the clock, of the processor, and both of these for importing torch and lightning.
    """
    found = []
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "METAHP_RESOURCES_S": "off", **environment}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    for index in range(rounds + 1):
        path = history if history.exists() else history.parent / f"none{index}-{os.urandom(4).hex()}" / "history.db"
        done = subprocess.run([sys.executable, str(script), str(path), space], capture_output=True, text=True, env=settings, check=True)
        found.append(tuple(float(number) for number in done.stdout.split("took")[1].split()))
    return found[1:]


def _cells(times: Sequence[tuple[float, ...]]) -> list[str]:
    """Return median and best in milliseconds, by the clock and of the processor."""
    return [f"{1000 * choose(values):.0f}" for values in zip(*times, strict=True) for choose in (statistics.median, min)]


def main() -> None:
    """Measure, print, and exit with 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where the time goes, for the large history")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, script = Path(folder) / "large.db", Path(folder) / "train.py"
        script.write_text(_CHILD)  # a user's classes have a file, which is read
        fill(large)
        if options.profile:
            subprocess.run([sys.executable, str(script), str(large), "space", "profile"], check=True)
        missing = Path(folder) / "missing.db"
        cases: dict[str, tuple[Path, str, dict[str, str]]] = {
            "10,000 runs, model up to date": (large, "space", {}),
            "10,000 runs, without a space": (large, "none", {}),
            "no history": (missing, "space", {"METAHP_STARTER": "off"}),
            "no history, without a space": (missing, "none", {"METAHP_STARTER": "off"}),
            "no history, the starter history asked": (missing, "space", {}),
        }
        rows, hosts = [], []
        is_within = True
        for name, (path, space, environment) in cases.items():
            times = measure(script, path, space, options.rounds, environment)
            limit = LIMITS_S.get(name)
            is_within &= limit is None or statistics.median(values[0] for values in times) < limit
            rows.append([name, *_cells([values[:2] for values in times]), "" if limit is None else f"{1000 * limit:.0f}"])
            hosts += [values[2:] for values in times]
        rows.append(["importing torch and lightning, for comparison", *_cells(hosts), ""])
    table = markdown_table(["start of a training, ms", "median", "best", "CPU, median", "CPU, best", "limit"], rows)
    print(table)
    if options.write:
        write_section("startup", f"{measured_on()} Median and best of {options.rounds} processes.\n\n{table}")
    sys.exit(not is_within)


if __name__ == "__main__":
    main()
