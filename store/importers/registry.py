"""The importers: a module each, and one entry here. Commands, documentation and tests take their lists from this registry.

The class of an importer is loaded when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from store.errors import InvalidArgumentError
from store.importers.foreign import RunSource


@dataclass(frozen=True, slots=True)
class SourceOption:
    """An option that only one importer has.

    Attributes:
        field: Field of the source that takes the value.
        flag: Its name on the command line.
        help: What it does, in a sentence.
        metavar: What its value looks like.
        parse: Makes the value of its text.
    """

    field: str
    flag: str
    help: str
    metavar: str
    parse: Callable[[str], Any] = str


@dataclass(frozen=True, slots=True)
class Importer:
    """One importer.

    Attributes:
        name: Word of the command line, and the ``kind`` of its source.
        source: ``module:Class`` of a ``RunSource`` that is made of a place and the fields of ``options``.
        title: What it imports.
        reads: What becomes of it, for help and documentation.
        metavar: What a place is, in a word.
        place: What a place is.
        example: Arguments that show its use.
        extra: Extra of the package that it needs, and for what.
        options: Options that only it has.
        takes_objective: Whether the source has a field ``objective``: it must ask for that metric, or know its column.
    """

    name: str
    source: str
    title: str
    reads: str
    metavar: str
    place: str
    example: str
    extra: str = ""
    options: tuple[SourceOption, ...] = ()
    takes_objective: bool = False

    def open(self, place: str, **values: Any) -> RunSource:
        """Return the source at a place; nothing is read yet."""
        module, _, name = self.source.partition(":")
        source: RunSource = getattr(import_module(module), name)(place, **values)
        return source


def register(importer: Importer) -> None:
    """Add an importer: ``metahp import NAME`` exists from now on.

    Raises:
        InvalidArgumentError: If its name is taken.
    """
    if importer.name in IMPORTERS:
        raise InvalidArgumentError(f"An importer must have a new name, but {importer.name!r} is taken. Choose another one.")
    IMPORTERS[importer.name] = importer


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def whole_numbers(text: str) -> tuple[int, ...]:
    """Split a comma-separated list of ids.

    Raises:
        InvalidArgumentError: If one of them is no whole number.
    """
    wrong = [part for part in words(text) if not part.isdecimal()]
    if wrong:
        raise InvalidArgumentError(f"Ids must be whole numbers, several with commas, but got {wrong[0]!r}.")
    return tuple(map(int, words(text)))


def count(text: str) -> int:
    """Read a number of records.

    Raises:
        InvalidArgumentError: If it is none from 1 to 10,000.
    """
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise InvalidArgumentError(f"A number of runs must be a whole number from 1 to 10000, but got {text!r}.")
    return int(text)


IMPORTERS: dict[str, Importer] = {}
"""Name -> importer, in the order in which help and documentation list them."""

register(
    Importer(
        "optuna",
        "store.importers.optuna_storage:OptunaSource",
        "Optuna studies",
        "each trial with parameters, state, direction and intermediate values as its curve; the task keeps the distributions",
        "STORAGE",
        "address (sqlite:///study.db), SQLite or journal file",
        "sqlite:///study.db --dry-run",
        options=(SourceOption("studies", "--study", "Only these studies; default: all.", "LIST", words),),
    )
)
register(
    Importer(
        "mlflow",
        "store.importers.mlflow_tracking:MlflowSource",
        "MLflow runs of all experiments",
        "parameters with their types, metrics with step and time, status, start and end",
        "PLACE",
        "mlruns folder, SQLite file, or tracking URI",
        "mlruns --objective val_loss",
        extra="`mlflow` for a server",
    )
)
register(
    Importer(
        "tensorboard",
        "store.importers.tensorboard_events:TensorBoardSource",
        "TensorBoard runs",
        "scalars; hyperparameters of the hparams plugin (add_hparams) or of a hparams.yaml beside them",
        "FOLDER",
        "log folder; every folder with event files below it is a run",
        "runs --objective val/accuracy --explain",
        extra="`tensorboard`",
    )
)
register(
    Importer(
        "lightning",
        "store.importers.lightning_csv:LightningSource",
        "runs of Lightning's CSVLogger",
        "metrics.csv and hparams.yaml of each version",
        "FOLDER",
        "folder of CSVLogger, or one with several",
        "lightning_logs --objective val_loss --task digits",
    )
)
register(
    Importer(
        "hf",
        "store.importers.hf_trainer:HuggingFaceSource",
        "runs of transformers.Trainer",
        "trainer_state.json of the checkpoint that got furthest; training_args.bin, which is read and never executed",
        "FOLDER",
        "output folder of a Trainer, or one with several",
        "out --task sst2 --objective eval_accuracy",
    )
)
register(
    Importer(
        "trackio",
        "store.importers.trackio_sqlite:TrackioSource",
        "Trackio projects",
        "configuration and values of each run",
        "PLACE",
        "SQLite file of a project, or Trackio's folder",
        "~/.cache/huggingface/trackio/digits.db --objective val_acc",
    )
)
register(
    Importer(
        "hyperparameterhunter",
        "store.importers.hyperparameterhunter:HyperparameterHunterSource",
        "HyperparameterHunter's experiments",
        "descriptions (version 3.0.0) with parameters and evaluations, and the leaderboard",
        "FOLDER",
        "folder HyperparameterHunterAssets",
        "HyperparameterHunterAssets --objective oof_roc_auc_score",
    )
)
register(
    Importer(
        "openml",
        "store.importers.openml_runs:OpenmlSource",
        "runs and evaluations of OpenML",
        "setups and measures of each run; task qualities become features of the task",
        "PLACE",
        "dump (ARFF or CSV), or task:31,37 to ask OpenML",
        "runs.csv --qualities qualities.csv --objective predictive_accuracy",
        extra="`openml` for ARFF and for OpenML itself",
        options=(
            SourceOption("qualities", "--qualities", "Table with a row for each task: its features.", "FILE"),
            SourceOption("flows", "--flow", "Only runs of these flows (ids), if OpenML is asked.", "LIST", whole_numbers),
            SourceOption("size", "--size", "Runs to ask OpenML for, for each task, up to 10000; default: 1000.", "N", count),
        ),
        takes_objective=True,
    )
)
