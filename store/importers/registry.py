"""The importers: a module each, and one line of ``IMPORTERS``. Commands, documentation and tests take their lists from here.

A source is a dataclass made of a place. What the command line and the documentation need to know stands in it: ``about``, and the fields
that are options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from importlib import import_module
from typing import Any

from store.errors import InvalidArgumentError

IMPORTERS = {
    "optuna": "store.importers.optuna_storage:OptunaSource",
    "mlflow": "store.importers.mlflow_tracking:MlflowSource",
    "tensorboard": "store.importers.tensorboard_events:TensorBoardSource",
    "lightning": "store.importers.lightning_csv:LightningSource",
    "hf": "store.importers.hf_trainer:HuggingFaceSource",
    "trackio": "store.importers.trackio_sqlite:TrackioSource",
    "hyperparameterhunter": "store.importers.hyperparameterhunter:HyperparameterHunterSource",
    "openml": "store.importers.openml_runs:OpenmlSource",
}
"""Word of the command line, and ``kind`` of the source -> ``module:Class``, loaded when it is used."""


def source_class(name: str) -> Any:
    """Return the class of an importer's source."""
    module, _, attribute = IMPORTERS[name].partition(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True, slots=True)
class About:
    """An importer in words, for help and documentation; ``about`` of its source.

    Attributes:
        title: What it imports.
        reads: What is read of it.
        metavar: What a place is, in a word.
        place: What a place is.
        example: Arguments that show its use.
        extra: Extra of the package that it needs, and for what.
    """

    title: str
    reads: str
    metavar: str
    place: str
    example: str
    extra: str = ""


def option(flag: str, metavar: str, help: str, *, parse: Callable[[str], Any] = str, default: Any = None, is_repeated: bool = False) -> Any:
    """Return a field of a source that is an option of its command.

    Args:
        flag: Its name on the command line.
        metavar: What its value looks like.
        help: What it does, in a sentence.
        parse: Makes the value of its text.
        default: The value without it.
        is_repeated: Whether it may be given several times; the value is then a tuple.
    """
    return field(default=default, metadata={"flag": flag, "metavar": metavar, "help": help, "parse": parse, "is_repeated": is_repeated})


def options_of(source: Any) -> Iterator[Field[Any]]:
    """Yield the fields of a source that are options."""
    return (item for item in fields(source) if "flag" in item.metadata)


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
