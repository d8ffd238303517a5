"""Which metric a run is judged by: the argument, else the host's own choice, else the evaluation loss or reward.

Only metrics of an evaluation count, and the Trainer logs those under ``eval_`` names; names are accepted with and without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import Trainer, TrainingArguments

from hf_callbacks.trainer_kind import learns_from_rewards
from store.errors import ObjectiveError
from store.metric_hints import as_arguments, listed, no_outcome_unless_later
from store.names import Direction, infer_direction, resolve_direction

EVALUATION_PREFIX = "eval_"
PRIMARY_METRIC = "eval_primary_metric"
"""The objective where an evaluator of sentence-transformers decides which of its metrics counts."""


@dataclass(frozen=True, slots=True)
class EvaluationObjective:
    """The objective found, or in ``problem`` why there is none. A problem beside a name is a doubt, not a failure.

    Attributes:
        name: The metric.
        direction: Its direction.
        problem: What to tell the user.
        is_late: Whether nothing evaluates during training, so that only ``trainer.evaluate()`` afterwards can log it.
        spelling: Return the name under which the Trainer logs it, where that is another.
    """

    name: str | None = None
    direction: Direction | None = None
    problem: str | None = None
    is_late: bool = False
    spelling: Callable[[], str] | None = None

    def completed(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return metrics with the objective under its own name as well."""
        logged = None if self.spelling is None else self.spelling()
        return metrics if logged not in metrics or self.name is None else {**metrics, self.name: metrics[logged]}


def evaluation_name(metric: str) -> str:
    """Return the name under which the Trainer logs a metric of an evaluation: ``accuracy`` -> ``eval_accuracy``."""
    return metric if metric.startswith(EVALUATION_PREFIX) else EVALUATION_PREFIX + metric


def evaluates(args: TrainingArguments) -> bool:
    """Say whether these arguments evaluate during training."""
    return str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no"


def find_objective(args: TrainingArguments, objective: str | None = None, direction: str | None = None) -> EvaluationObjective:
    """Find the objective of a run; ``metric_for_best_model`` and ``greater_is_better`` count where the caller passes nothing.

    Raises:
        ObjectiveError: If a direction is given that is none, or none is given and it cannot be inferred.
    """
    found = _find(args, objective, direction)
    if evaluates(args) or found.name is None:
        return found
    return replace(found, problem=found.problem or _never_evaluates(found.name), is_late=True)


def _find(args: TrainingArguments, objective: str | None, direction: str | None) -> EvaluationObjective:
    host = None if args.metric_for_best_model is None else evaluation_name(args.metric_for_best_model)
    host_direction = None if args.greater_is_better is None else (Direction.MAX if args.greater_is_better else Direction.MIN)
    if objective is not None:
        name = evaluation_name(objective)
        if direction is None and infer_direction(name) is None and name == host and host_direction is not None:
            return EvaluationObjective(name, host_direction)
        return EvaluationObjective(name, resolve_direction(name, direction))
    if host is not None:
        found = resolve_direction(host, direction) if direction is not None or host_direction is None else host_direction
        inferred = infer_direction(host)
        if direction is None and inferred is not None and inferred is not found:
            return EvaluationObjective(host, found, _contradiction(host, found, inferred))
        return EvaluationObjective(host, found)
    name = evaluation_name("reward" if learns_from_rewards(args) else "loss")
    return EvaluationObjective(name, resolve_direction(name, direction))


def as_evaluated(found: EvaluationObjective, trainer: Trainer | None) -> EvaluationObjective:
    """Return the objective of a Trainer for which neither the user nor the arguments have named one.

    A Trainer of sentence-transformers that evaluates by an evaluator only has no loss: it is what the evaluator calls its primary metric,
    and chooses at its first evaluation.
    """
    if trainer is None or found.name is None or trainer.args.metric_for_best_model is not None:
        return found
    evaluator: Any = getattr(trainer, "evaluator", None)
    if trainer.eval_dataset is not None or not hasattr(evaluator, "primary_metric"):
        return found
    direction = Direction.MAX if getattr(evaluator, "greater_is_better", True) else Direction.MIN
    problem = _never_evaluates(PRIMARY_METRIC) if found.is_late else None
    return EvaluationObjective(PRIMARY_METRIC, direction, problem, found.is_late, lambda: evaluation_name(str(evaluator.primary_metric)))


def of_first_set(found: EvaluationObjective, sets: Sequence[str]) -> EvaluationObjective:
    """Return an objective by the name that it has with one evaluation set, where it is named as that of the first of several.

    The first set's metric is what counts where none is named, so ``eval_a_accuracy`` of the sets ``a`` and ``b`` is ``eval_accuracy``.
    That of another set is another measure.
    """
    named = [name for name in sets if (found.name or "").startswith(f"{EVALUATION_PREFIX}{name}_")]
    if found.name is None or not named or max(named, key=len) != sets[0]:  # a set's name may begin with that of another
        return found
    return replace(found, name=EVALUATION_PREFIX + found.name.removeprefix(f"{EVALUATION_PREFIX}{sets[0]}_"))


def check_objective(objective: str | None, direction: str | None) -> None:
    """Check what a callback is given, as far as that is possible before there are training arguments.

    Raises:
        ObjectiveError: If the direction is neither ``min`` nor ``max``, or missing for a name that does not imply it.
    """
    if objective is not None:
        resolve_direction(evaluation_name(objective), direction)
    elif direction is not None:
        resolve_direction("loss", direction)


def find_objective_or_none(args: TrainingArguments, objective: str | None = None, direction: str | None = None) -> EvaluationObjective:
    """Find the objective as above, but name a mistake in ``problem`` instead of raising: for use while training."""
    try:
        return find_objective(args, objective, direction)
    except ObjectiveError as error:
        return EvaluationObjective(problem=f"{error} The run is kept without an objective.")


def missing_objective_message(name: str, names: list[str]) -> str:
    """Say that an objective is not among the metrics of an evaluation, and what works instead.

    Args:
        name: The objective.
        names: What works, nearest first.
    """
    start = f"An objective must be a metric of the evaluation, but {name!r} was not among those of the first one"
    rest = no_outcome_unless_later("one has it").capitalize()
    if not names:
        return (
            f"{start}, nor anything else that a run can be judged by. {rest}. Give eval_dataset labels, for which the model returns a "
            "loss, or the Trainer compute_metrics."
        )
    short = names[0].removeprefix(EVALUATION_PREFIX)
    return (
        f"{start}; these were: {listed(names)}. {rest}. Log it from compute_metrics, or choose another: MetaHPCallback with "
        f"{as_arguments(names[0])}, or metric_for_best_model={short!r}."
    )


def _never_evaluates(name: str) -> str:
    return (
        f"An objective must be a metric of an evaluation, but eval_strategy is 'no', so {name!r} is known only if trainer.evaluate() "
        "follows the training; otherwise nothing can be learned from this run. Pass eval_strategy='epoch' with an eval_dataset."
    )


def _contradiction(name: str, found: Direction, inferred: Direction) -> str:
    return (
        f"The direction of an objective must be known, but greater_is_better={found is Direction.MAX} contradicts what the name "
        f"{name!r} says ({inferred.value}); {found.value!r} is used, as the Trainer does. Pass direction='min' or 'max'."
    )
