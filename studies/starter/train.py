"""Train the starter's networks: ``python -m studies.starter.train``. A task that is done is not done again.

Costs about half an hour of one slow core. Each task becomes one file of a folder (``build/starter``); ``pack`` makes of them what ships.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from studies.starter.data import load
from studies.starter.plan import SEED, StarterTask, describe, groups, n_networks, starter_tasks
from studies.starter.training import train_group

OUTPUT = Path(__file__).resolve().parents[2] / "build" / "starter"


def train_task(task: StarterTask, folder: Path, device: str = "cpu") -> Path:
    """Train every network of a task and write configurations and curves to ``<name>.json``.

    Args:
        task: What to train.
        folder: Where the file goes.
        device: Torch device.

    Returns:
        The file.
    """
    data = load(task.data)
    started = time.process_time()
    runs: list[dict[str, Any]] = []
    for group in groups(task, data):
        curves = train_group(task.family, data, group.configs, group.seeds, group.seed, device)
        for i, (config, seed) in enumerate(zip(group.configs, group.seeds, strict=True)):
            accuracy = None if curves.val_accuracy is None else _rounded(curves.val_accuracy[i])
            loss, train_loss = _rounded(curves.val_loss[i]), _rounded(curves.train_loss[i])
            values = {"val_loss": loss, "train_loss": train_loss, "val_accuracy": accuracy}
            runs.append({"hparams": config, "seed": seed, "group_seed": group.seed, **values})
    content = {
        "seed": SEED,
        "description": describe(task, data),
        "data": {"make": task.data.make, "n": task.data.n, "options": dict(task.data.options), "seed": task.data.seed},
        "cpu_seconds": round(time.process_time() - started, 1),
        "runs": runs,
    }
    path = folder / f"{task.name.replace(' ', '_')}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)
    return path


def _rounded(values: np.ndarray) -> list[float]:
    """Four digits are more than a validation set of hundreds can resolve, and pack well."""
    return [float(f"{value:.4g}") for value in values]


def main() -> None:
    """Train what is missing."""
    import torch

    parser = argparse.ArgumentParser(description="Train the networks of the starter history.")
    parser.add_argument("--folder", type=Path, default=OUTPUT, help="where the files go (%(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device (%(default)s)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tasks = starter_tasks()
    sys.stderr.write(f"{len(tasks)} tasks, {n_networks(tasks)} networks\n")
    for i, task in enumerate(tasks):
        path = given.folder / f"{task.name.replace(' ', '_')}.json"
        if not path.exists():
            began = time.monotonic()
            train_task(task, given.folder, given.device)
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {i + 1}/{len(tasks)} {task.name}: {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
