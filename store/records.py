"""What a history gives back: plain frozen records, no connection behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from store.names import canonical_name
from store.statuses import FINISHED as FINISHED
from store.statuses import RunStatus as RunStatus
from store.statuses import Source as Source

if TYPE_CHECKING:
    from store.history import History

OUTDATED_BY = 1.2
"""A meta-model is outdated once its history has so many times the finished runs that it was fitted to."""


class Configuration(dict[str, Any]):
    """Canonical name -> value. A look-up understands the other spellings of a name, too: ``["lr"]``, ``["batch_size"]``."""

    def __missing__(self, name: str) -> Any:
        """Return the value under the canonical name.

        Raises:
            KeyError: If there is none.
        """
        canonical = canonical_name(name)
        if not dict.__contains__(self, canonical):
            raise KeyError(name)
        return dict.__getitem__(self, canonical)

    def __contains__(self, name: object) -> bool:
        """Say whether a value is there under this or the canonical name."""
        return dict.__contains__(self, name) or (isinstance(name, str) and dict.__contains__(self, canonical_name(name)))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value, or the default where there is none."""
        return self[name] if name in self else default  # noqa: SIM401  # which is this


@dataclass(frozen=True, slots=True)
class HParam:
    """One hyperparameter of one run.

    Attributes:
        name: Canonical name, e.g. ``learning_rate``.
        raw_name: The name the user's code uses, e.g. ``lr``.
        value: The value in force, with its type.
        source: Who decided it.
        requested: What the user's code asked for, where that differs (the fallback of a rewritten value), else None.
        observed: What was read back after the start of training, None if it was not read back.
    """

    name: str
    raw_name: str
    value: Any
    source: Source = Source.USER
    requested: Any = None
    observed: Any = None


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One logged value. ``value`` may be NaN or infinite: a history keeps those."""

    name: str
    step: int
    value: float
    attempt: int = 0
    epoch: float | None = None
    elapsed_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One training run as the history knows it. Times are UTC in ISO 8601, durations in seconds, memory in bytes."""

    id: str
    task_id: str
    task_name: str
    status: RunStatus
    objective: str | None = None
    direction: str | None = None
    objective_best: float | None = None
    objective_best_step: int | None = None
    objective_last: float | None = None
    objective_last_step: int | None = None
    epochs_reached: float | None = None
    steps_reached: int | None = None
    started_utc: str = ""
    ended_utc: str | None = None
    heartbeat_utc: str | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    gpu_s: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    framework: str | None = None
    model_class: str | None = None
    model_family: str | None = None
    n_parameters: int | None = None
    variant: str | None = None
    error: str | None = None
    git_commit: str | None = None
    recommendation_id: str | None = None
    parent_run_id: str | None = None
    attempt: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, HParam] = field(default_factory=dict)
    original_task_id: str = ""
    """The task of its own identity, where the grouping was corrected by hand; else equal to ``task_id``."""

    @property
    def hparams(self) -> Configuration:
        """Canonical name -> value in force."""
        return Configuration({name: param.value for name, param in self.provenance.items()})

    @property
    def is_finished(self) -> bool:
        """Whether the outcome is evidence for the hyperparameters."""
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task: what is trained. ``identity`` shows what two runs must share to be of this task."""

    id: str
    name: str
    is_named: bool
    objective: str | None = None
    direction: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)
    n_runs: int = 0
    n_finished: int = 0
    best: float | None = None
    best_run_id: str | None = None
    last_run_utc: str | None = None
    merged_ids: tuple[str, ...] = ()


@runtime_checkable
class TaskLike(Protocol):
    """What ``start_run`` needs to know of a task; ``metamodel.TaskDescription`` is one."""

    @property
    def name(self) -> str | None:
        """The explicit name, or None where the fingerprint decides."""

    def identity(self) -> dict[str, Any]:
        """Return what decides which runs belong together, JSON-compatible."""

    def to_dict(self) -> dict[str, Any]:
        """Return the whole description, JSON-compatible."""


class TunedConfiguration(Protocol):
    """What ``start_run`` looks for in ``hparams`` beside the values; ``metahp_tuning.suggest`` returns one.

    Each of these may be missing, and counts only where the caller of ``start_run`` gave nothing itself.
    """

    @property
    def recommendation_id(self) -> str | None:
        """The recommendation that the configuration follows, None where it follows none."""

    @property
    def requested(self) -> Mapping[str, Any]:
        """Raw name -> the value that the user's code asked for."""

    @property
    def sources(self) -> Mapping[str, Source | str]:
        """Raw name -> who decided the value."""

    @property
    def run_fields(self) -> Mapping[str, Any]:
        """What is known of the run, by the names of the arguments of ``start_run``: task, objective, direction, model and its source."""

    def save_into(self, history: History) -> None:
        """Save the recommendation into the history in which the run is about to stand."""
