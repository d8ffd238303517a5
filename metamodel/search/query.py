"""A query: what is asked of the meta-model, resolved against the history."""

from __future__ import annotations

from dataclasses import dataclass

from metamodel.data.observations import TaskRuns
from metamodel.data.task import TaskDescription
from metamodel.space.dimensions import Space
from metamodel.space.run_configs import Config


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is asked, resolved against the history. Configurations are by canonical name, with the global batch as the one batch size.

    Attributes:
        task_id: Id of the task, None if none was named.
        target: The usable runs of the task and its siblings, as ``target_runs`` joins them; None without any.
        sources: Source tasks: other tasks with enough runs that tuned something of the space.
        space: What may change; empty where candidates are given.
        current: The user's own configuration, the context of every candidate.
        mode: ``best`` or ``explore``.
        description: The task, as far as it is known.
        pending: Configurations that are being tried now.
        starter_tasks: Tasks of the starter history that are in scope.
        feasibility_only_tasks: Further other tasks, used only for where runs fail and what was tried.
    """

    task_id: str | None
    target: TaskRuns | None
    sources: tuple[TaskRuns, ...]
    space: Space
    current: Config
    mode: str
    description: TaskDescription
    pending: tuple[Config, ...] = ()
    starter_tasks: tuple[TaskRuns, ...] = ()
    feasibility_only_tasks: tuple[TaskRuns, ...] = ()
