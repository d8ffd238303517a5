"""What a live task is: data, model, grid and metrics, and how one configuration of it is trained and recorded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from metahp_report.comparison.records import GRID_LEVELS, KEY, TaskInfo
from store.errors import InvalidArgumentError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from metamodel.data.task import TaskDescription
    from store import History, RunRecorder

SIZES = ("tiny", "small", "full")


@dataclass(slots=True, eq=False)
class Training:
    """One evaluation to be carried out; filled while it runs.

    Attributes:
        history: Where the run is recorded.
        size: ``tiny``, ``small`` or ``full``.
        seed: Seed of the split, the initialisation and the order of the data.
        folder: Folder with the data; None loads from the Hugging Face hub.
        scratch: Folder for what a host insists on writing.
        note: What is noted in the run's description: which evaluation of which comparison this is.
        recorder: The run, as soon as it is recorded.
    """

    history: History
    size: str
    seed: int
    folder: Path | None
    scratch: Path
    note: Mapping[str, Any] = field(default_factory=dict)
    recorder: RunRecorder | None = None

    @property
    def run_id(self) -> str | None:
        """Id of the run, None before it is recorded."""
        return None if self.recorder is None else self.recorder.id

    def opened(self, recorder: RunRecorder | None) -> None:
        """Mark a run that has just been opened as this evaluation."""
        if recorder is not None and self.recorder is None:
            self.recorder = recorder
            recorder.update(description={KEY: dict(self.note)})


class LiveTask(ABC):
    """A tuning task that is trained for real.

    Attributes:
        name: Its name on the command line.
        about: Data and model in a sentence.
        objective: Metric that chooses, as in reports.
        direction: ``min`` or ``max``.
        metrics: Every metric, the objective first.
        logged_objective: Name under which the run logs the objective.
        grid: Hyperparameter -> values in order, or ``(low, high, "log" | "linear" | "int")`` of a range.
        defaults: What the libraries do where nobody sets anything.
        same_data: Words that betray the same data in the name or description of a past task.
        model_family: Family of the model, as ``TaskDescription`` has it.
        optimizer: What updates the weights; None where nothing does.
        epoch_shares: Size -> share of the grid's epochs that is really trained.
        part: Part of a suite it is of; tasks of one part never learn from those of another.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    objective: ClassVar[str]
    direction: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    logged_objective: ClassVar[str]
    grid: ClassVar[Mapping[str, tuple[Any, ...]]]
    defaults: ClassVar[Mapping[str, Any]]
    same_data: ClassVar[tuple[str, ...]]
    model_family: ClassVar[str]
    optimizer: ClassVar[str | None] = None
    epoch_shares: ClassVar[Mapping[str, float]] = {}
    part: str = ""

    @abstractmethod
    def prepare(self, training: Training) -> None:
        """Load and split the data, which every later evaluation of this process shares; not charged to any method."""

    @abstractmethod
    def train(self, config: Mapping[str, Any], training: Training) -> None:
        """Train one configuration, recorded into the history, and log the metrics of the test split as ``test_...`` in the end.

        Args:
            config: Hyperparameter -> value, as in ``grid``.
            training: Where and how.
        """

    def history_name(self, size: str) -> str:
        """Return the task's name in a history."""
        return f"live {self.name} {size}"

    def describe(self, size: str) -> TaskDescription:
        """Return what is known of the task before anything is trained."""
        from metamodel.data.task import TaskDescription

        return TaskDescription(
            name=self.history_name(size),
            objective=self.logged_objective,
            direction=self.direction,
            model_family=self.model_family,
            is_pretrained=self.is_pretrained(size),
        )

    def fixed(self, size: str) -> dict[str, Any]:
        """Return what every run of the task has in common beside the grid, by canonical name."""
        return {} if self.optimizer is None else {"optimizer": self.optimizer}

    def is_pretrained(self, size: str) -> bool:
        """Say whether training starts from pre-trained weights."""
        return False

    def space(self) -> dict[str, BaseDistribution]:
        """Return what may be chosen."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {}
        for name, values in self.grid.items():
            if not is_range(values):
                found[name] = CategoricalDistribution(values)
            elif values[2] == "int":
                found[name] = IntDistribution(values[0], values[1])
            else:
                found[name] = FloatDistribution(values[0], values[1], log=values[2] == "log")
        return found

    def levels(self) -> dict[str, tuple[Any, ...]]:
        """Return the values of the grid; ranges have three levels."""
        return {name: _levels(values) if is_range(values) else tuple(values) for name, values in self.grid.items()}

    def trained_epochs(self, epochs: int, size: str) -> int:
        """Return how many epochs are really trained."""
        return max(1, round(epochs * self.epoch_shares.get(size, 1.0)))

    def in_force(self, config: Mapping[str, Any], size: str) -> dict[str, Any]:
        """Return a configuration as the history knows it: canonical names, and the epochs that are really trained."""
        found = {"num_epochs" if name == "epochs" else name: value for name, value in config.items()}
        if "epochs" in config:
            found["num_epochs"] = self.trained_epochs(config["epochs"], size)
        return found

    def as_in_grid(self, values: Mapping[str, Any], size: str) -> dict[str, Any]:
        """Return what ``in_force`` was made from: the epochs of the grid."""
        found = dict(values)
        if "epochs" in self.grid:
            trained = found.pop("num_epochs")
            found["epochs"] = next(epochs for epochs in self.grid["epochs"] if self.trained_epochs(epochs, size) == trained)
        return {name: found[name] for name in self.grid}

    def info(self) -> TaskInfo:
        """Return what a report tells of the task."""
        space = {
            name: {"low": values[0], "high": values[1], "log": values[2] == "log"} if is_range(values) else list(values)
            for name, values in self.grid.items()
        }
        return TaskInfo(self.name, self.about, self.objective, self.direction, self.metrics, space, dict(self.defaults))


def is_range(values: tuple[Any, ...]) -> bool:
    """Say whether an entry of a grid is a range."""
    return len(values) == 3 and values[2] in ("log", "linear", "int")


def _levels(bounds: tuple[Any, ...]) -> tuple[Any, ...]:
    low, high, kind = bounds
    shares = [i / (GRID_LEVELS - 1) for i in range(GRID_LEVELS)]
    if kind == "log":
        return tuple(float(f"{low * (high / low) ** share:.6g}") for share in shares)
    values = [low + share * (high - low) for share in shares]
    return tuple(dict.fromkeys(round(value) for value in values)) if kind == "int" else tuple(values)


def check_size(size: str) -> str:
    """Return a size checked.

    Raises:
        InvalidArgumentError: If there is no such size.
    """
    if size not in SIZES:
        raise InvalidArgumentError(f"The size must be one of {', '.join(SIZES)}, but got {size!r}. Pass one of these.")
    return size
