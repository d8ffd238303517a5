"""What evaluations logged of the objective: one value of it where there are several evaluation sets, and a word where there is none."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerState

from hf_callbacks.objective import EVALUATION_PREFIX, EvaluationObjective, missing_objective_message
from store.errors import ObjectiveWarning
from store.metric_hints import usable_metrics
from store.user_warnings import warn_user

if TYPE_CHECKING:
    from store import RunRecorder


_PROGRESS_NAMES = frozenset({"epoch", "step"})
AFTER = "after_training/"
"""Before the name of an evaluation that followed a training which had its own."""


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
        """Return metrics without the progress, with the objective under its own name: of several evaluation sets the first one's."""
        plain = {key: value for key, value in metrics.items() if key not in _PROGRESS_NAMES}
        found, name = self.objective.completed(plain), self.objective.name
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


@dataclass
class AfterTraining:
    """The run that a Trainer has just trained, for what the same Trainer finds out about it afterwards."""

    recorder: RunRecorder
    state: weakref.ref[TrainerState]
    evaluations: EvaluationWatch
    has_outcome: bool

    def log(self, state: TrainerState, metrics: Mapping[str, Any]) -> None:
        """Add what was found to the run, if this is the state of the Trainer that trained it; the outcome only where it has none."""
        if self.state() is not state:
            return
        found, objective = self.evaluations.with_objective(metrics), self.evaluations.objective
        if self.recorder.objective is None and objective.is_late and objective.name in found:
            self.recorder.update(objective=objective.name, direction=objective.direction)
        if not self.has_outcome and self.recorder.objective in found:
            self.has_outcome = True
            self.recorder.log_after_end(found, state.global_step, is_partial=False)
            return
        if not self.has_outcome:
            self.evaluations.warn_once(found)
        # The last validation of the training stands under the same name and step, and keeps standing there.
        renamed = {AFTER + name if name.startswith(EVALUATION_PREFIX) else name: value for name, value in found.items()}
        self.recorder.log_after_end(renamed, state.global_step)
