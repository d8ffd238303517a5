"""What a history says of a fit that is about to start, in values to write: loaded where there is a history to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_metahp.objective import Objective
from metahp_tuning.batch_split import global_space, per_device_config, whole_numbers
from metahp_tuning.class_source import model_variant
from metahp_tuning.precedence import Change, Constraint, Setting, plan_changes
from metamodel.data.task import TaskDescription
from metamodel.recommendation import Recommendation
from metamodel.space.batch import BatchLayout
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.names import Direction, canonical_name
from store.statuses import Source

if TYPE_CHECKING:
    from lightning_metahp.deciding import Case
    from store import History


def objective_of_earlier_runs(history: History, description: TaskDescription) -> Objective | None:
    """Return the objective that the newest task of the same name, or of the same data and model, was trained for."""
    wanted = _without_objective(description.identity())
    tasks = [task for task in history.tasks() if task.objective is not None and _without_objective(task.identity) == wanted]
    newest = max(tasks, key=lambda task: task.last_run_utc or "", default=None)
    if newest is None or newest.objective is None or newest.direction is None:
        return None
    return Objective(newest.objective, Direction(newest.direction))


def _without_objective(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in ("objective", "direction")}


def ask(case: Case, history: History, current: Mapping[str, Any]) -> Recommendation:
    """Ask the meta-model for the configuration of a case.

    Args:
        case: What may change, and what is known.
        history: Where past runs are.
        current: The user's own configuration.

    Returns:
        The recommendation, its batch the global one, under its own name where that is not what a device loads.
    """
    from metamodel import recommend

    request, layout = case.request, case.layout
    space = case.space
    if space is not None and layout is not None:
        space = global_space(space, layout)
    limits = {}
    if layout is not None and case.max_per_device is not None:
        offered = next((values for raw, values in (case.space or {}).items() if canonical_name(raw) == ACCUMULATION), None)
        limits = {PER_DEVICE_BATCH_SIZE: case.max_per_device * max(whole_numbers(offered) or [layout.accumulation]) * layout.world_size}
    found = recommend(
        history,
        task=case.description,
        space=space,
        mode="best" if request.mode == "dry-run" else request.mode,
        current=current,
        allowed=list(case.allowed),
        limits=limits,
        variant=model_variant(request.module),
        max_fit_s=case.seconds,
    )[0]
    if layout is None or layout.factor == 1:
        return found
    # Said by its own name where it is not what a device loads.
    return replace(
        found,
        config={GLOBAL_BATCH_SIZE if canonical_name(raw) == PER_DEVICE_BATCH_SIZE else raw: value for raw, value in found.config.items()},
    )


def planned_changes(
    recommendation: Recommendation,
    allowed: Mapping[str, Setting],
    constraints: Sequence[Constraint],
    layout: BatchLayout | None,
    space: Mapping[str, Any] | None,
    max_per_device: float | None,
) -> list[Change]:
    """Turn a recommendation, whose batch is the global one, into the values to write.

    Args:
        recommendation: What was recommended.
        allowed: What may be rewritten, by canonical name.
        constraints: Hard limits.
        layout: How the batch is put together without us, None where there is no batch size.
        space: The user's own space, whose lists are kept to.
        max_per_device: Largest batch that a device may load.
    """
    if layout is None:
        return [typed(change) for change in plan_changes(allowed, recommendation, constraints)]
    config = per_device_config(recommendation.config, layout, space, max_per_device=max_per_device)
    changes = [typed(change) for change in plan_changes(allowed, replace(recommendation, config=config), constraints)]
    wanted = per_device_config(recommendation.config, layout, space).get(PER_DEVICE_BATCH_SIZE, 0)
    if constraints and PER_DEVICE_BATCH_SIZE in config and wanted > config[PER_DEVICE_BATCH_SIZE]:
        limited: dict[str, Any] = {"source": Source.CONSTRAINT, "reason": f"{wanted} was recommended, but {constraints[0].reason}"}
        changes = [replace(item, **limited) if item.name == PER_DEVICE_BATCH_SIZE else item for item in changes]
    size = next((change.new for change in changes if change.name == PER_DEVICE_BATCH_SIZE), layout.per_device)
    accumulation = int(config.get(ACCUMULATION, layout.accumulation))
    if accumulation * layout.world_size == 1:
        return changes
    total = f"{size} per device x {accumulation} accumulated x {layout.world_size} processes = a global batch of "
    total += str(size * accumulation * layout.world_size)
    is_ours = {PER_DEVICE_BATCH_SIZE, ACCUMULATION}
    return [replace(item, reason=total) if item.name in is_ours and item.source is Source.METAHP else item for item in changes]


def typed(change: Change) -> Change:
    """Give a number the type of the value it replaces: models recommend 32.0 where a loader counts with 32."""
    new = change.new.item() if hasattr(change.new, "item") else change.new
    is_count = isinstance(change.old, int) and not isinstance(change.old, bool)
    if is_count and isinstance(new, float) and new.is_integer():
        new = int(new)
    if isinstance(change.old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    return replace(change, new=new)
