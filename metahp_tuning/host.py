"""What the tuning decision needs of a host, and what a user asks of it.

A host is whatever starts a training: Lightning's callbacks and command line, transformers' arguments and Trainer, a loop of one's own. It
says what its settings are and who chose them, what can no longer be changed, and how a value is written; it decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from metahp_tuning.precedence import Setting, check_keep
from metamodel.data.task import TaskDescription
from metamodel.space.batch import BatchLayout
from store.errors import InvalidArgumentError
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.names import canonical_name, resolve_direction

if TYPE_CHECKING:
    from metahp_tuning.decision import TuningDecision
    from metahp_tuning.resumption import StoredRun
    from store import History

MODES = ("best", "explore", "dry-run")

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """What a user asks for.

    Attributes:
        space: Raw or canonical name -> Optuna distribution or list of values; None for what is safe to change.
        task: Name or description, None to recognise it.
        objective: Metric to improve, None to find it.
        direction: ``min`` or ``max``, None to infer it.
        history: A history, its path, or None for the default one.
        keep: Names never to touch.
        mode: One of ``MODES``.
        max_startup_s: Time for everything, in seconds, where a model has to be fitted first.
    """

    space: Mapping[str, Any] | None = None
    task: str | TaskDescription | None = None
    objective: str | None = None
    direction: str | None = None
    history: History | str | os.PathLike[str] | None = None
    keep: tuple[str, ...] = ()
    mode: str = "best"
    max_startup_s: float = 10.0

    @property
    def is_dry(self) -> bool:
        """Whether nothing is to be written."""
        return self.mode == "dry-run"

    @property
    def query_mode(self) -> str:
        """Mode of the query."""
        return "best" if self.is_dry else self.mode

    @property
    def tunable(self) -> tuple[str, ...]:
        """Names of the space, as the user wrote them."""
        return tuple(self.space or ())


def check_request(
    space: Mapping[str, Any] | None = None,
    task: str | TaskDescription | None = None,
    objective: str | None = None,
    direction: str | None = None,
    history: History | str | os.PathLike[str] | None = None,
    keep: Collection[str] | str = (),
    mode: str = "best",
    max_startup_s: float = 10.0,
) -> TuningRequest:
    """Return what a user asks for, checked as far as that can be done without a host.

    Raises:
        SpaceError: If the space is malformed.
        InvalidArgumentError: If ``mode``, ``keep``, ``task`` or ``max_startup_s`` is not possible.
        ObjectiveError: If ``direction`` is neither ``min`` nor ``max``.
    """
    if mode not in MODES:
        raise InvalidArgumentError(f"mode must be one of {', '.join(map(repr, MODES))}, but got {mode!r}. Pass one of these.")
    if isinstance(max_startup_s, bool) or not isinstance(max_startup_s, int | float) or not max_startup_s > 0:
        raise InvalidArgumentError(f"max_startup_s must be a positive number of seconds, but got {max_startup_s!r}. Pass for example 10.")
    check_task(task)
    if space is not None:
        from metamodel.space.dimensions import parse_space

        parse_space(space)
        space = dict(space)
    if direction is not None:
        direction = resolve_direction(objective or "objective", direction).value
    return TuningRequest(space, task, objective, direction, history, check_keep(keep), mode, float(max_startup_s))


def check_task(task: object) -> str | TaskDescription | None:
    """Return a user's ``task`` checked.

    Raises:
        InvalidArgumentError: If it is neither a name, a description nor None.
    """
    if task is None or isinstance(task, TaskDescription) or (isinstance(task, str) and task):
        return task
    raise InvalidArgumentError(
        f"A task must be a name, a TaskDescription or None, but got {type(task).__name__}: {task!r:.80}. "
        "Pass task='my-task', or leave it out."
    )


def setting_name(raw: str) -> str:
    """Return the canonical name of the setting that a name of a space rewrites: a global batch is written as samples per device."""
    name = canonical_name(raw)
    return PER_DEVICE_BATCH_SIZE if name == GLOBAL_BATCH_SIZE else name


class Host(Protocol):
    """What the tuning decision asks of a host.

    Attributes:
        framework: Its name in the registry: ``lightning``, ``transformers`` or ``python``.
        splits_by_accumulation: Whether a global batch in a space may be made of accumulated batches, too.
        needs_known_task: Whether nothing is recommended for a task that cannot be recognised.
        unknown_task_hint: What a user does so that the task can be recognised.
        unknown_objective_hint: What a user does so that the objective is known.
        unknown_definition: Names of ``comparability`` that cannot be known yet; what the newest run of the task has there counts.
    """

    framework: str
    splits_by_accumulation: bool
    needs_known_task: bool
    unknown_task_hint: str
    unknown_objective_hint: str
    unknown_definition: tuple[str, ...]

    def check(self, request: TuningRequest) -> TuningRequest:
        """Return the request with its names, and where the host knows them its values, checked against what the host has.

        Raises:
            UnknownHyperparameterError: If ``space`` or ``keep`` names something that there is not.
            SpaceError: If the space holds a value that its setting cannot have.
        """

    def standing_down(self) -> str | None:
        """Return why nothing is tuned here at all (a sweep chooses the values), empty for a reason nobody needs to read, None to go on."""

    def resumed_run(self) -> StoredRun | None:
        """Return the run that this one resumes, None for a fresh start."""

    def settings(self) -> Mapping[str, Setting]:
        """Return what could be rewritten: canonical name -> the value without us, and who chose it."""

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        """Return why a setting cannot be changed, or not told apart from another, with the way that works; None where it can."""

    def describe(self) -> TaskDescription:
        """Return what is trained, with the objective where it is known."""

    def layout(self) -> BatchLayout | None:
        """Return how the batch is put together without us, None where there is no batch size."""

    def current(self) -> dict[str, Any]:
        """Return the configuration without us, as a run would record it."""

    def planned_epochs(self, description: TaskDescription) -> float | None:
        """Return how many full passes over the training data this run is going to make, None where unknown.

        Args:
            description: What is trained, as ``describe`` gave it.
        """

    @property
    def precision(self) -> str | None:
        """How numbers are held in training, in Lightning's words; None where unknown."""

    def variant(self) -> str | None:
        """Return the version of the model's source, None where it cannot be known."""

    @property
    def notes(self) -> Collection[str]:
        """Further remarks for the message."""

    def why_nothing_left(self) -> str:
        """Return why there is nothing to tune, where that is not because of single settings; empty otherwise."""

    def broadcast(self, compute: Callable[[], _Answer]) -> _Answer:
        """Compute on rank zero and return the same answer on every rank.

        Raises:
            MetaHPError: What ``compute`` raised, on every rank.
        """

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Write the changes on every rank, or on none; return the decision as it was carried out."""

    def report(self, doing: str, error: Exception) -> None:
        """Warn once that something of ours failed; the training goes on."""

    def print(self, message: str) -> None:
        """Print a message, on rank zero only."""


class PlainHost:
    """Answers of a host that has nothing particular to say; a base for hosts."""

    splits_by_accumulation = False
    needs_known_task = False
    unknown_task_hint = "Pass task='a name for it'."
    unknown_objective_hint = "Pass objective='val_loss'."
    unknown_definition: tuple[str, ...] = ()

    def check(self, request: TuningRequest) -> TuningRequest:
        """Return the request as it is."""
        return replace(request)

    def standing_down(self) -> str | None:
        """Go on."""
        return None

    def resumed_run(self) -> StoredRun | None:
        """Return that nothing is resumed."""
        return None

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        """Return that everything can be changed."""
        return None

    def planned_epochs(self, description: TaskDescription) -> float | None:
        """Return that it is unknown."""
        return None

    @property
    def precision(self) -> str | None:
        """How numbers are held: unknown."""
        return None

    def variant(self) -> str | None:
        """Return that it is unknown."""
        return None

    @property
    def notes(self) -> Collection[str]:
        """No further remarks."""
        return ()

    def why_nothing_left(self) -> str:
        """Return nothing."""
        return ""

    def broadcast(self, compute: Callable[[], _Answer]) -> _Answer:
        """Compute here: there is one process."""
        return compute()
