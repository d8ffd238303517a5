"""The query to the meta-model for one start, and its answer as values to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from metahp_tuning.batch_split import global_space, per_device_config, whole_numbers
from metahp_tuning.precedence import Change, Constraint, Setting, plan_changes
from metamodel.data.siblings import are_siblings
from metamodel.data.task import TaskDescription
from metamodel.recommendation import Recommendation
from metamodel.space.batch import BatchLayout
from store.errors import UnknownTaskError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.ids import task_id_of
from store.names import Direction, canonical_name
from store.statuses import Source

if TYPE_CHECKING:
    from store import History, TaskRecord

MAX_ACCUMULATION = 64
"""Accumulated batches that a global batch named in a space may be split into."""


@dataclass(frozen=True, slots=True)
class TuningProblem:
    """One decision on its way: what may change, what is known, and how the batch is put together.

    Attributes:
        description: What is trained.
        space: The user's space without what cannot be changed, None for what is safe to change.
        allowed: What may be rewritten, by canonical name.
        constraints: Hard limits.
        layout: How the batch is put together without us, None where there is no batch size.
        current: The configuration without us, by raw name.
        mode: ``best`` or ``explore``.
        variant: Version of the model's source.
        max_fit_s: Time for an automatic fit, in seconds.
        planned_epochs: How many full passes over the training data the run is going to make, None where unknown.
    """

    description: TaskDescription
    space: Mapping[str, Any] | None
    allowed: Mapping[str, Setting]
    constraints: Sequence[Constraint]
    layout: BatchLayout | None
    current: Mapping[str, Any]
    mode: str
    variant: str | None
    max_fit_s: float
    planned_epochs: float | None = None

    @property
    def max_per_device(self) -> float | None:
        """Largest batch that a device may load."""
        return min((limit.high for limit in self.constraints), default=None)

    @property
    def may_split_batch(self) -> bool:
        """Whether the space names a global batch and the accumulated batches may be written."""
        return self.offered(GLOBAL_BATCH_SIZE) is not None and ACCUMULATION in self.allowed

    def offered(self, name: str) -> Any:
        """Return the values that the space has under a canonical name, None for none."""
        return next((values for raw, values in (self.space or {}).items() if canonical_name(raw) == name), None)


def earlier_objective(history: History, description: TaskDescription) -> tuple[str, Direction] | None:
    """Return the objective that the newest task of the same name, or of the same data and model, or a sibling, was trained for."""
    wanted = description.with_objective(None, None)
    tasks = [task for task in history.tasks() if task.objective is not None and _is_alike(task, wanted)]
    newest = max(tasks, key=lambda task: task.last_run_utc or "", default=None)
    if newest is None or newest.objective is None or newest.direction is None:
        return None
    return newest.objective, Direction(newest.direction)


def with_earlier_definition(history: History, description: TaskDescription, names: Sequence[str]) -> TaskDescription:
    """Return a description completed by what the newest run of the task says of its objective's definition, under some names."""
    if not names:
        return description
    try:
        task_id = history.task(task_id_of(description.identity())).id  # or what it was merged into
    except UnknownTaskError:
        return description
    newest = history.runs(task_id, limit=1, newest_first=True, with_hparams=False)
    known = newest[0].description.get("comparability") or {} if newest else {}
    found = {name: known[name] for name in names if name in known}
    return replace(description, comparability={**found, **description.comparability})


def _is_alike(task: TaskRecord, wanted: TaskDescription) -> bool:
    """Say whether a task trains the same, or is a sibling of it, for whatever objective."""
    if wanted.name is not None:
        return dict(task.identity) == wanted.identity() or _is_merged(task, wanted)
    other = TaskDescription.from_dict(task.description).with_objective(None, None)
    is_candidate = other.name is None and other.model_class == wanted.model_class
    return (is_candidate and (other.identity() == wanted.identity() or are_siblings(other, wanted))) or _is_merged(task, wanted)


def _is_merged(task: TaskRecord, wanted: TaskDescription) -> bool:
    """Say whether what is wanted, for the objective of a task, was made part of that task by hand."""
    return bool(task.merged_ids) and task_id_of(wanted.with_objective(task.objective, task.direction).identity()) in task.merged_ids


def query_meta_model(problem: TuningProblem, history: History, *, splits_by_accumulation: bool = False) -> Recommendation:
    """Ask the meta-model for a configuration.

    Args:
        problem: What may change, and what is known.
        history: Where past runs are.
        splits_by_accumulation: Whether a global batch in the space may be made of accumulated batches, too.

    Returns:
        The recommendation. Its batch is the global one, and is called so where that differs from what a device loads.
    """
    from metamodel import recommend

    layout, space = problem.layout, problem.space
    limits = {}
    if layout is not None:
        space = space if space is None else global_space(space, layout)
        if problem.max_per_device is not None:
            accumulation = max(whole_numbers(problem.offered(ACCUMULATION)) or [layout.accumulation])
            if splits_by_accumulation and problem.may_split_batch:
                accumulation = MAX_ACCUMULATION
            limits = {GLOBAL_BATCH_SIZE: problem.max_per_device * accumulation * layout.world_size}
    found = recommend(
        history,
        task=problem.description,
        space=space,
        mode=problem.mode,
        current=problem.current,
        allowed=list(problem.allowed),
        limits=limits,
        variant=problem.variant,
        planned_epochs=problem.planned_epochs,
        max_fit_s=problem.max_fit_s,
    )[0]
    if layout is None or layout.factor == 1:
        return found
    named = {GLOBAL_BATCH_SIZE if canonical_name(raw) == PER_DEVICE_BATCH_SIZE else raw: value for raw, value in found.config.items()}
    return replace(found, config=named)


def planned_changes(recommendation: Recommendation, problem: TuningProblem, *, splits_by_accumulation: bool = False) -> list[Change]:
    """Turn a recommendation, whose batch is the global one, into the values to write.

    Args:
        recommendation: What was recommended.
        problem: What may change, and what is known.
        splits_by_accumulation: Whether a global batch in the space may be made of accumulated batches, too.
    """
    layout, constraints = problem.layout, problem.constraints
    if layout is None:
        return [typed(change) for change in plan_changes(problem.allowed, recommendation, constraints)]
    space = problem.space
    if splits_by_accumulation and problem.may_split_batch:
        # Which of the two factors makes up the batch is nobody's choice then; the one that fits is taken.
        from optuna.distributions import IntDistribution

        space = {raw: values for raw, values in (space or {}).items() if canonical_name(raw) != PER_DEVICE_BATCH_SIZE}
        space[ACCUMULATION] = IntDistribution(1, MAX_ACCUMULATION)
    config = per_device_config(recommendation.config, layout, space, max_per_device=problem.max_per_device)
    changes = [typed(change) for change in plan_changes(problem.allowed, replace(recommendation, config=config), constraints)]
    size = next((change.new for change in changes if change.name == PER_DEVICE_BATCH_SIZE), layout.per_device)
    accumulation = int(config.get(ACCUMULATION, layout.accumulation))
    total_size = size * accumulation * layout.world_size
    wanted = per_device_config(recommendation.config, layout, space).get(PER_DEVICE_BATCH_SIZE, 0)
    batches = (GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE)
    asked = next((value for raw, value in recommendation.config.items() if canonical_name(raw) in batches), 0)
    if constraints and wanted > config.get(PER_DEVICE_BATCH_SIZE, wanted) and total_size < asked:
        limited: dict[str, Any] = {"source": Source.CONSTRAINT, "reason": f"{wanted} was recommended, but {constraints[0].reason}"}
        changes = [replace(item, **limited) if item.name == PER_DEVICE_BATCH_SIZE else item for item in changes]
    if accumulation * layout.world_size == 1:
        return changes
    total = f"{size} per device x {accumulation} accumulated x {layout.world_size} processes = a global batch of "
    total += str(total_size)
    factors = {PER_DEVICE_BATCH_SIZE, ACCUMULATION}
    return [replace(item, reason=total) if item.name in factors and item.source is Source.METAHP else item for item in changes]


def typed(change: Change) -> Change:
    """Give a number the type of the value it replaces: models recommend 32.0 where a loader counts with 32."""
    new = change.new.item() if hasattr(change.new, "item") else change.new
    is_count = isinstance(change.old, int) and not isinstance(change.old, bool)
    if is_count and isinstance(new, float) and new.is_integer():
        new = int(new)
    if isinstance(change.old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    return replace(change, new=new)
