"""Which tasks a query learns from: the user's other tasks, the starter history, and the model of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from metamodel.data.observations import LearningTable, TaskRuns
from metamodel.data.task import TaskDescription
from metamodel.evidence_floor import MIN_OTHER_RUNS
from metamodel.gp.meta_model import MIN_TASKS_TO_FIT, MetaModel, is_trainable
from metamodel.kinds import class_of
from metamodel.space.run_configs import varies
from metamodel.starter.scope import MIN_TASKS_WITH_STARTER, starter_applies

if TYPE_CHECKING:
    from metamodel.starter.starter_prior import StarterPrior


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """What a query learns from.

    Attributes:
        tasks: The user's other tasks.
        left_out: Why runs of further tasks are not used -> how many.
        starter: The starter history's prior, None where it does not apply.
        starter_message: Why it does not; empty where it was not asked.
        feasibility_only: Other tasks of the user, used only for where runs fail and what was tried.
    """

    tasks: tuple[TaskRuns, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    starter: StarterPrior | None = None
    starter_message: str = ""
    feasibility_only: tuple[TaskRuns, ...] = ()

    @property
    def starter_tasks(self) -> tuple[TaskRuns, ...]:
        """Tasks of the starter history in scope."""
        return () if self.starter is None else self.starter.tasks

    @property
    def should_fit(self) -> bool:
        """Whether a model is fitted to the user's other tasks; with the starter history one of them is too little."""
        return bool(self.tasks) if self.starter is None else _are_enough_with_starter(self.tasks)

    def min_tasks_to_fit(self, wanted: int, kind: str) -> int:
        """Return how many tasks an automatic fit takes; a single one must be another than the target task."""
        least: int = class_of(kind).min_tasks
        return max(wanted, least) if any(is_trainable(task) for task in self.tasks) else MIN_TASKS_TO_FIT


def select_sources(
    table: LearningTable,
    target: TaskRuns | None,
    counted: Sequence[TaskRuns],
    names: frozenset[str] | None,
    description: TaskDescription,
    current: Mapping[str, Any],
    kind: str,
) -> Sources:
    """Choose the user's other tasks and the starter history.

    Fine-tuning needs learning rates hundreds of times smaller than training from scratch: neither is a source for the other.

    Args:
        table: What the history offers.
        target: Runs of the target task and its siblings that count, None without any.
        counted: The target task and its siblings.
        names: What may change; None for anything.
        description: The target task.
        current: The user's own configuration.
        kind: Kind of the meta-model.
    """
    chosen: list[TaskRuns] = []
    left_out: Counter[str] = Counter()
    known = {task.task_id for task in counted}
    for task in table.tasks:
        if task.task_id in known:
            continue
        if len(task) < MIN_OTHER_RUNS:
            left_out[f"task has fewer than {MIN_OTHER_RUNS} runs"] += len(task)
        elif bool(task.description.is_pretrained) != bool(description.is_pretrained):
            left_out["task starts from other weights (pre-trained or not)"] += len(task)
        elif names is not None and not any(varies(task.configs, name) for name in names):
            left_out["task tuned none of these hyperparameters"] += len(task)
        else:
            chosen.append(task)
    starter, message = None, ""
    if class_of(kind).combines_with_starter and starter_applies(len(chosen)):
        from metamodel.starter.starter_prior import load_starter_prior

        # The optimizer is that of the last run, if it is not known.
        last = target.configs[-1] if target is not None and target.configs else {}
        labels = {name: last[name] for name in ("optimizer", "model_family") if name in last}
        found = load_starter_prior(description, {**labels, **current})
        starter, message = (None, found) if isinstance(found, str) else (found, "")
    return Sources(tuple(chosen), dict(left_out), starter, message)


def drop_ineligible_tasks(
    model: MetaModel | None,
    table: LearningTable,
    sources: Sources,
    siblings: Sequence[TaskRuns],
    description: TaskDescription,
    task_id: str | None,
) -> MetaModel | None:
    """Drop tasks that must not inform this query.

    With the starter, all but the selected ones; otherwise tasks whose pre-training status differs. Siblings' runs count as the target's.

    Tasks that have been merged into another are counted there, and a model of nothing but the target task would count its runs twice. A
    model of a single task is used as long as there is a single source.
    """
    if model is None:
        return None
    known = set(model.info["task_ids"])
    if len(known) < MIN_TASKS_TO_FIT <= len(sources.tasks):
        return None
    eligible = {task_id, *(task.task_id for task in sources.tasks)}
    if sources.starter is None:
        is_pretrained = bool(description.is_pretrained)
        eligible |= {task.task_id for task in table.tasks if bool(task.description.is_pretrained) == is_pretrained}
    left = model.without_tasks(known - (eligible - {task.task_id for task in siblings}))
    return None if left is not None and set(left.info["task_ids"]) == {task_id} else left


def combine_with_starter(model: MetaModel | None, sources: Sources) -> tuple[MetaModel | None, Sources]:
    """Mix the starter history, where it applies, with the model of the user's other tasks; without such a model, use it by itself."""
    if sources.starter is None:
        return model, sources
    if model is not None and not {task.task_id for task in sources.tasks}.isdisjoint(model.info["task_ids"]):
        starter = sources.starter.combined_with(model)
        return starter.model, replace(sources, starter=starter)
    unused, left_out = sources.tasks, dict(sources.left_out)
    if unused:
        few, unfitted = "too few other tasks to mix with the starter history", "other tasks without a meta-model of them"
        left_out[unfitted if _are_enough_with_starter(unused) else few] = sum(len(task) for task in unused)
    return sources.starter.model, replace(sources, tasks=(), feasibility_only=unused, left_out=left_out)


def _are_enough_with_starter(tasks: Sequence[TaskRuns]) -> bool:
    return sum(is_trainable(task) for task in tasks) >= MIN_TASKS_WITH_STARTER
