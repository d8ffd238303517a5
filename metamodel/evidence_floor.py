"""How much evidence a recommendation takes, and the abstention where there is less."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from metamodel.data.task import TaskDescription
from metamodel.data.units import Unit
from metamodel.explanation import describe_evidence
from metamodel.recommendation import Decision, Evidence, Recommendation
from metamodel.starter.scope import is_off, out_of_scope_message
from store.ids import new_id

MIN_TARGET_RUNS = 4
"""Finished runs of the task and its siblings from which a recommendation may be made without any other task."""
MIN_OTHER_TASKS = 2
MIN_OTHER_RUNS = 8
"""Or: this many other tasks with this many finished runs each."""


def thin_evidence(evidence: Evidence) -> str | None:
    """Say why the evidence is below the floor; None where it is enough."""
    n_own = evidence.n_runs + evidence.n_related + evidence.n_sibling_runs
    if n_own >= MIN_TARGET_RUNS or evidence.n_tasks >= MIN_OTHER_TASKS or evidence.n_starter_tasks:
        return None
    known = describe_evidence(evidence) if n_own + evidence.n_other_runs else "no run with an outcome"
    return (
        f"not enough history ({known}). Needed: {MIN_TARGET_RUNS} runs of this task or its siblings with an outcome, or "
        f"{MIN_OTHER_RUNS} runs of each of {MIN_OTHER_TASKS} other tasks that tuned the same hyperparameters"
    )


def nothing_recommended(task_id: str | None, mode: str, evidence: Evidence, reason: str = "") -> Recommendation:
    """Return the abstention itself, with an id of its own."""
    interval = (math.nan, math.nan)
    return Recommendation(new_id(), {}, math.nan, interval, None, None, 1.0, Unit.RANK, evidence, Decision.ABSTAIN, reason, task_id, mode)


def without_history(description: TaskDescription, current: Mapping[str, Any], mode: str, task_id: str | None) -> Recommendation | None:
    """Return what ``recommend`` answers where no history exists, without opening or importing anything for it.

    Args:
        description: The task.
        current: The user's own configuration by canonical name.
        mode: ``best`` or ``explore``.
        task_id: Id of the task.

    Returns:
        An abstention; None where the starter history may apply, and has to be loaded.
    """
    message = "" if is_off() else out_of_scope_message(description, current)
    if not message and not is_off():
        return None
    evidence = Evidence()
    return nothing_recommended(task_id, mode, evidence, "; ".join(part for part in (thin_evidence(evidence), message) if part))
