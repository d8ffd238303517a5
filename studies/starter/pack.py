"""Turn trained networks into what ships: ``python -m studies.starter.pack``.

Writes into ``metamodel/starter/data``: ``runs.parquet`` with every run and its curves, ``tasks.json`` with tasks and provenance, and for
each family the meta-model fitted to its runs, ``mlp.json`` and ``mlp.safetensors``, with the runs behind it in ``mlp-runs.safetensors``.
``--refit`` fits the models again to the runs that are packed already.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metamodel.data.observations import LearningTable, TaskRuns, past_scores
from metamodel.data.task import TaskDescription
from metamodel.gp.gp_meta_model import GPMetaModel
from metamodel.gp.task_gps import KEPT_BEST, MAX_TASK_RUNS
from metamodel.space.batch import as_seen_by_model, name_in_model
from store.errors import InvalidArgumentError
from store.hyperparameters import GLOBAL_BATCH_SIZE
from store.names import Direction
from studies.starter.plan import SEED
from studies.starter.train import OUTPUT

TARGET = Path(__file__).resolve().parents[2] / "metamodel" / "starter" / "data"
HYPERPARAMETERS = (
    "learning_rate",
    "weight_decay",
    "dropout",
    "warmup_ratio",
    "lr_scheduler",
    "optimizer",
    "momentum",
    "num_layers",
    "hidden_size",
    "batch_size",
    "num_epochs",
)
LABELS = {"lr_scheduler": ("constant", "cosine", "linear"), "optimizer": ("Adam", "AdamW", "SGD")}
CURVES = ("val_loss", "val_accuracy", "train_loss")
ARCHITECTURE = ("num_layers", "hidden_size")
"""Left out of what is learned: how deep and wide a network should be follows from how large the data are, and these are all small."""
LAST_EPOCHS = 3
OPTIMIZERS = ("SGD", "Adam")


def read(folder: Path) -> list[dict[str, Any]]:
    """Read every trained task.

    Raises:
        InvalidArgumentError: If there is none.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise InvalidArgumentError(f"There must be trained tasks in {folder}, but there is none. Run studies.starter.train.")
    return found


def read_shipped(folder: Path) -> list[dict[str, Any]]:
    """Read every task back from what ships, so that models of a new format are fitted to the very same runs.

    Raises:
        InvalidArgumentError: If it is not there.
    """
    from pyarrow import parquet

    if not (folder / "runs.parquet").exists():
        raise InvalidArgumentError(f"There must be a packed starter history in {folder}, but there is no runs.parquet.")
    content = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    described = {task["description"]["name"]: task["description"] for family in content["families"].values() for task in family}
    found = {name: {"description": described[name], "data": data, "runs": []} for name, data in content["data"].items()}
    for row in parquet.read_table(folder / "runs.parquet").to_pylist():
        run = {"hparams": {name: row[name] for name in HYPERPARAMETERS}, **{name: row[name] for name in ("seed", "group_seed", *CURVES)}}
        found[row["task"]]["runs"].append(run)
    return list(found.values())


def kind_of(run: Mapping[str, Any]) -> str:
    """Return ``SGD``, or ``Adam`` for Adam and AdamW: good learning rates of the two kinds differ too much for one surface."""
    return "SGD" if run["hparams"]["optimizer"] == "SGD" else "Adam"


def outcome(run: Mapping[str, Any], objective: str) -> tuple[float, bool]:
    """Return where a run's objective ended, the mean of its last epochs, and whether it diverged.

    Not its best epoch: on small validation sets that rewards the restless curves of learning rates that are too large.
    """
    if not (math.isfinite(run["val_loss"][-1]) and math.isfinite(run["train_loss"][-1])):
        return math.nan, True
    return float(np.mean([value for value in run[objective][-LAST_EPOCHS:] if math.isfinite(value)])), False


def write_runs(tasks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write one row a run, with its configuration, seeds, ending and curves."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [(task, run) for task in tasks for run in task["runs"]]
    columns: dict[str, pa.Array] = {
        "task": pa.array([task["description"]["name"] for task, _ in rows]).dictionary_encode(),
        "objective": pa.array([task["description"]["objective"] for task, _ in rows]).dictionary_encode(),
        "status": pa.array(
            ["diverged" if outcome(run, task["description"]["objective"])[1] else "completed" for task, run in rows]
        ).dictionary_encode(),
        "seed": pa.array([run["seed"] for _, run in rows], pa.int32()),
        "group_seed": pa.array([run["group_seed"] for _, run in rows], pa.int32()),
    }
    for name in HYPERPARAMETERS:
        columns[name] = pa.array([run["hparams"][name] for _, run in rows])
    for name in CURVES:
        columns[name] = pa.array([run[name] for _, run in rows], pa.list_(pa.float32()))
    parquet.write_table(pa.table(columns), path, compression="zstd", compression_level=19)


def learning_tasks(tasks: Sequence[Mapping[str, Any]]) -> list[TaskRuns]:
    """Return what the meta-model learns from: each task once for each kind of optimizer."""
    found = []
    for task in tasks:
        description = TaskDescription.from_dict(task["description"])
        objective, direction = str(description.objective), Direction(str(description.direction))
        sign = -1.0 if direction is Direction.MIN else 1.0
        for kind in OPTIMIZERS:
            runs = _thinned([run for run in task["runs"] if kind_of(run) == kind], objective, sign)
            ended = [outcome(run, objective) for run in runs]
            values = sign * np.array([value for value, _ in ended])
            is_diverged = np.array([diverged for _, diverged in ended], dtype=bool)
            hparams = [
                as_seen_by_model({name: value for name, value in run["hparams"].items() if value is not None and name not in ARCHITECTURE})
                for run in runs
            ]
            label = f"starter: {description.name}, {kind}"
            found.append(
                TaskRuns(
                    label,
                    label,
                    objective,
                    direction,
                    description,
                    tuple(f"{label} {i}" for i in range(len(runs))),
                    tuple({**config, "model_family": description.model_family} for config in hparams),
                    values,
                    is_diverged,
                    np.zeros(len(runs), dtype=bool),
                    (None,) * len(runs),
                )
            )
    return found


def _steps(config: Mapping[str, Any], n_train: int) -> int:
    return int(config["num_epochs"]) * math.ceil(n_train / int(config[GLOBAL_BATCH_SIZE]))


def _thinned(runs: list[Any], objective: str, sign: float) -> list[Any]:
    """Keep as many runs as a process holds, the best and even shares of the others: what is asked later is what was learned from."""
    if len(runs) <= MAX_TASK_RUNS:
        return runs
    order = sorted(range(len(runs)), key=lambda i: -np.nan_to_num(sign * outcome(runs[i], objective)[0], nan=-np.inf))
    others = np.random.default_rng(SEED).choice(order[KEPT_BEST:], MAX_TASK_RUNS - KEPT_BEST, replace=False)
    return [runs[i] for i in sorted({*order[:KEPT_BEST], *others.tolist()})]


def fit(family: str, tasks: Sequence[TaskRuns], folder: Path) -> GPMetaModel:
    """Fit the meta-model of a family and write it: what is a good depth or width for one family need not be for another.

    Without a shared function: good learning rates of SGD and of Adam differ too much for one, and tasks of users join without a fit. From
    scores that show how far bad runs fall behind: with no run of the user's own, what to shun counts as much as what is best.
    """
    table = LearningTable(tuple(tasks), {}, sum(len(task) for task in tasks))
    model = GPMetaModel.fit(table, {"id": family, "created_utc": None}, n_inducing=0, score=past_scores, seed=SEED % 1000, progress=_say)
    model.save(folder)
    return model


def _say(share: float, text: str) -> None:
    if round(100 * share) % 20 == 0:
        sys.stderr.write(f"{share:6.0%} {text}\n")


def write_prior_runs(tasks: Sequence[TaskRuns], path: Path) -> None:
    """Write the raw configurations and values, shape ``(T, n)``; minus infinity is padding, NaN a diverged run or an absent name."""
    from safetensors.numpy import save_file

    longest = max(len(task) for task in tasks)
    arrays: dict[str, NDArray[np.float32]] = {"values": np.full((len(tasks), longest), -np.inf, dtype=np.float32)}
    for i, task in enumerate(tasks):
        arrays["values"][i, : len(task)] = task.values
    for name in map(name_in_model, HYPERPARAMETERS):
        column = np.full((len(tasks), longest), np.nan, dtype=np.float32)
        for i, task in enumerate(tasks):
            for j, config in enumerate(task.configs):
                if name in config:
                    column[i, j] = LABELS[name].index(config[name]) if name in LABELS else config[name]
        arrays[f"config.{name}"] = column
    save_file(arrays, path)


def provenance(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return where the runs come from."""
    import sklearn
    import torch

    runs = [run for task in tasks for run in task["runs"]]
    return {
        "made_by": "python -m studies.starter.train, then studies.starter.pack",
        "seed": SEED,
        "licence": "Apache-2.0, as the rest of the project",
        "data": "bundled with scikit-learn, or made by its generators and those of studies/starter/data.py; nothing downloaded",
        "versions": {"torch": torch.__version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__},
        "cpu_seconds": round(sum(task["cpu_seconds"] for task in tasks)),
        "n_tasks": len(tasks),
        "n_runs": len(runs),
        "n_diverged": sum(outcome(run, task["description"]["objective"])[1] for task in tasks for run in task["runs"]),
        "n_epochs": sum(len(run["val_loss"]) for run in runs),
    }


def pack(source: Path, target: Path) -> dict[str, Any]:
    """Write everything that ships.

    Args:
        source: Folder of trained tasks.
        target: Folder to write.

    Returns:
        The provenance.
    """
    tasks = read(source)
    learned = learning_tasks(tasks)
    about = provenance(tasks)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_runs(tasks, folder / "runs.parquet")
        families: dict[str, list[dict[str, Any]]] = {}
        for family in sorted({str(task.description.model_family) for task in learned}):
            mine = [task for task in learned if task.description.model_family == family]
            write_prior_runs(mine, folder / f"{family}-runs.safetensors")
            fit(family, mine, folder)
            families[family] = [
                {
                    "id": task.task_id,
                    "kind": task.task_id.rpartition(", ")[2],
                    "longest": max(_steps(config, int(task.description.n_train or 0)) for config in task.configs),
                    "description": task.description.to_dict(),
                }
                for task in mine
            ]
        data = {task["description"]["name"]: task["data"] for task in tasks}
        content = {
            "provenance": about,
            "hyperparameters": [name_in_model(name) for name in HYPERPARAMETERS],
            "labels": LABELS,
            "families": families,
            "data": data,
        }
        (folder / "tasks.json").write_text(json.dumps(content, indent=0), encoding="utf-8")
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            shutil.copyfile(path, target / path.name)
    return about


def refit_shipped(folder: Path) -> None:
    """Fit the models that ship again, to the runs that ship: after a change of their format, or of how they are fitted."""
    learned = learning_tasks(read_shipped(folder))
    for family in sorted({str(task.description.model_family) for task in learned}):
        fit(family, [task for task in learned if task.description.model_family == family], folder)


def main() -> None:
    """Pack the folder of the training script."""
    import torch

    parser = argparse.ArgumentParser(description="Pack trained networks into the starter history that ships.")
    parser.add_argument("--folder", type=Path, default=OUTPUT, help="trained tasks (%(default)s)")
    parser.add_argument("--target", type=Path, default=TARGET, help="where it goes (%(default)s)")
    parser.add_argument("--refit", action="store_true", help="only fit the models again, to the runs already packed in the target")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.refit:
        refit_shipped(given.target)
    else:
        print(json.dumps(pack(given.folder, given.target), indent=1))
    for path in sorted(given.target.iterdir()):
        print(f"{path.stat().st_size:>9,} {path.name}")


if __name__ == "__main__":
    main()
