"""Hyperparameters that were found not to be in force: they are not advised again for the same task and the same model code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metahp_tuning.precedence import Kept, Setting
from metamodel.data.task import TaskDescription
from metamodel.explanation import format_value
from store.errors import UnknownTaskError
from store.ids import task_id_of
from store.values import same_value

if TYPE_CHECKING:
    from store import History


def found_ineffective(history: History, description: TaskDescription, variant: str | None, allowed: Mapping[str, Setting]) -> list[Kept]:
    """Return those of the settings whose last recommended value was not in force, with the reason.

    Args:
        history: Where past runs are.
        description: What is trained.
        variant: Version of the model's source.
        allowed: What may be rewritten, by canonical name.
    """
    found = []
    for name, setting in allowed.items():
        try:
            last = history.last_rewrite(task_id_of(description.identity()), name, variant=variant)
        except UnknownTaskError:
            return []
        if last is not None and not same_value(last[1], last[2]):
            run, written, observed = last
            reason = f"in run {run} {format_value(written)} was written and {format_value(observed)} was in force; "
            reason += "it is advised again once the model's code has changed, or a run has a value of your own in force"
            found.append(Kept(name, setting.raw_name, setting.value, reason))
    return found
