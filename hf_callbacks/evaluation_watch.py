"""What evaluations logged of the objective: one value of it where there are several evaluation sets, and a word where there is none."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hf_callbacks.objective import EVALUATION_PREFIX, EvaluationObjective, missing_objective_message
from store.errors import ObjectiveWarning
from store.metric_hints import usable_metrics
from store.user_warnings import warn_user


class EvaluationWatch:
    """Follows the evaluations of one run.

    Args:
        objective: The objective.
        evaluation_sets: Names of the evaluation sets, where there are several.

    Attributes:
        objective: The objective.
        has_warned: Whether the user was told that it is missing.
    """

    def __init__(self, objective: EvaluationObjective | None = None, evaluation_sets: Sequence[str] = ()) -> None:
        self.objective = objective or EvaluationObjective()
        self._sets = tuple(evaluation_sets)
        self._logged: dict[str, Any] = {}
        self._has_chosen = False
        self.has_warned = False

    def with_objective(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return metrics with the objective's value under its own name: with several evaluation sets that of the first one."""
        found, name = dict(metrics), self.objective.name
        self._logged |= {key: value for key, value in found.items() if key.startswith(EVALUATION_PREFIX)}
        if name is None or name in found or not self._sets:
            return found
        spellings = [f"{EVALUATION_PREFIX}{item}_{name.removeprefix(EVALUATION_PREFIX)}" for item in self._sets]
        if spellings[0] not in found:
            return found
        found[name] = self._logged[name] = found[spellings[0]]
        if not self._has_chosen:
            self._has_chosen = True
            others = f"; pass objective={spellings[1]!r} for the next one" if len(spellings) > 1 else ""
            said = f"metahp: {name} is logged once for each evaluation set, and {spellings[0]} is used as the objective{others}"
            print(said, file=sys.stderr, flush=True)
        return found

    def warn_once(self, metrics: Mapping[str, Any]) -> None:
        """Say after the first evaluation that the objective is not among its metrics, with what works instead.

        Args:
            metrics: What was just evaluated; with several sets only the last one's ends the evaluation.
        """
        end = f"{EVALUATION_PREFIX}{self._sets[-1]}_" if self._sets else EVALUATION_PREFIX
        name = self.objective.name
        if self.has_warned or name is None or name in self._logged or not any(key.startswith(end) for key in metrics):
            return
        self.has_warned = True
        warn_user(missing_objective_message(name, usable_metrics(self._logged, name)), ObjectiveWarning)


def names_of_sets(eval_dataset: object) -> tuple[str, ...]:
    """Return the names of several evaluation sets, empty for one: as the Trainer does, only a dictionary holds several."""
    return tuple(map(str, eval_dataset)) if isinstance(eval_dataset, dict) else ()
