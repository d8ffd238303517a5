"""What the tuning decision needs to know of training arguments, and how it is written into a copy of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_callbacks.arguments import (
    argument_values,
    batch_layout,
    precision_of,
    read_arguments,
    read_settings,
    rewritten,
    tunable_fields,
    warm_up_ratio,
)
from hf_callbacks.checkpoint_note import resumed_rewrites, stored_run_at
from hf_callbacks.evaluation_watch import names_of_sets
from hf_callbacks.fixed_fields import EVERY_FIELD, fixed_fields
from hf_callbacks.loss_settings import LOSS
from hf_callbacks.model_path import without_weights
from hf_callbacks.objective import EvaluationObjective, as_evaluated, find_objective, of_first_set
from hf_callbacks.provenance import Provenance, Target, provenance_of, rewrites_of, with_provenance
from hf_callbacks.run_length import planned_epochs
from hf_callbacks.space_checks import WARM_UP_NAMES, check_names, check_values, with_warm_up_named
from hf_callbacks.trainer_description import describe_task, read_model_config
from hf_callbacks.trainer_inputs import given_arguments
from hf_callbacks.trainer_kind import library_of
from metahp_tuning.configured_values import model_settings
from metahp_tuning.decision import TuningDecision, with_message
from metahp_tuning.host import PlainHost, TuningRequest
from metahp_tuning.model_description import describe_variant
from metahp_tuning.precedence import Setting
from metahp_tuning.resumption import StoredRun
from metamodel.data.task import TaskDescription
from metamodel.space.batch import BatchLayout
from store.hyperparameters import GLOBAL_BATCH_SIZE, TRANSFORMERS, conservative_names
from store.names import canonical_name

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")


class ArgumentsHost(PlainHost):
    """Training arguments before there is a Trainer; what is decided goes into a copy of them.

    Args:
        args: The arguments as they would be without us.
        request: What the user asks for.
        explicit: Fields passed as keywords.
        is_complete: Whether these are known to be all that the user passed.
        model: The model or the path of its weights, None if it does not exist yet.
        train_dataset: Training data, None if unknown.
        eval_dataset: Validation data, None if unknown.
        trainer: The Trainer, None before there is one.

    Attributes:
        result: The arguments that were made; None where the user's own stay as they are.

    Raises:
        ObjectiveError: If the direction of the objective is unknown.
    """

    framework = TRANSFORMERS
    splits_by_accumulation = True

    def __init__(
        self,
        args: TrainingArguments,
        request: TuningRequest,
        *,
        explicit: frozenset[str] = frozenset(),
        is_complete: bool = False,
        model: nn.Module | str | None = None,
        train_dataset: object = None,
        eval_dataset: object = None,
        trainer: Trainer | None = None,
    ) -> None:
        self.args = args
        self.result: TrainingArguments | None = None
        self._request = request
        self._explicit = explicit
        self._is_complete = is_complete
        self._model = without_weights(model, args)
        self._trainer = trainer
        self._datasets = (train_dataset, eval_dataset)
        self._objective: EvaluationObjective = of_first_set(
            find_objective(args, request.objective, request.direction), names_of_sets(eval_dataset)
        )
        if request.objective is None and trainer is not None:
            self._objective = as_evaluated(self._objective, trainer)
        elif request.objective is None and eval_dataset is None and self._is_by_evaluator():
            self._objective = EvaluationObjective()
            self.unknown_objective_hint = "Pass eval_dataset= as for the Trainer, or as objective= the metric of its evaluator."
        # Before there is a Trainer, a loss that it is given is unknown.
        self.unknown_definition = () if trainer is not None else (LOSS,)
        self._stored: StoredRun | None = None
        missing = [f"{name}=" for name, value in (("model", model), ("train_dataset", train_dataset)) if value is None]
        self.unknown_task_hint = f"Pass {' and '.join(missing) or 'task='} so that the task can be recognised."

    def _is_by_evaluator(self) -> bool:
        """Say whether the Trainer may evaluate by an evaluator only, which then tells the objective."""
        return library_of(self.args) == "sentence_transformers" and self.args.metric_for_best_model is None

    def check(self, request: TuningRequest) -> TuningRequest:
        """Check names and values against the fields, with the warm-up under the name of what is meant: a share or steps."""
        in_model = [setting.raw_name for setting in model_settings(self._model).values()]
        available = [*tunable_fields(type(self.args)), *(setting.raw_name for setting in self._of_model.values())]
        kept = [name for name in request.keep if canonical_name(name) not in conservative_names(TRANSFORMERS)]
        check_names(kept, self.args, [*available, *in_model])
        space, keep = request.space, request.keep
        if space is not None:
            space = with_warm_up_named(space)
            check_names(list(space), self.args, available, in_model)
            check_values(space, self.args)
        if WARM_UP_NAMES & {canonical_name(name) for name in keep}:
            keep = (*keep, *WARM_UP_NAMES)  # two names of one field
        self._request = replace(request, space=space, keep=keep)
        return self._request

    def standing_down(self) -> str | None:
        """Stand down where a checkpoint brings the values, or a configuration that is not ours to read decides all of them."""
        if self._resumed is not None:
            return "the run resumes from a checkpoint, which brings its own values"
        return self._fixed.get(EVERY_FIELD)

    def resumed_run(self) -> StoredRun | None:
        """Return the run behind ``resume_from_checkpoint``, with what these arguments have of its rewrites."""
        self._stored = stored = self._resumed
        if stored is None:
            return None
        return replace(stored, rewrites={name: item for name, item in stored.rewrites.items() if hasattr(self.args, name)})

    def settings(self) -> Mapping[str, Setting]:
        """Return the tunable fields, with the warm-up under the name that the space uses for it."""
        found = {**read_settings(self.args, self._explicit, is_complete=self._is_complete), **self._of_model}
        named = {canonical_name(raw) for raw in self._request.tunable} & WARM_UP_NAMES
        for wanted in named:
            (other,) = WARM_UP_NAMES - {wanted}
            if other in found:
                found[wanted] = found.pop(other)
        return found

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        """Return what else decides a field."""
        return self._fixed.get(name)

    def describe(self) -> TaskDescription:
        """Describe what is trained."""
        train_dataset, eval_dataset = self._datasets
        return describe_task(
            self.args if self._trainer is None else given_arguments(self._trainer),
            model=self._model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            task=self._request.task,
            objective=self._objective,
            trainer=self._trainer,
        )

    def layout(self) -> BatchLayout | None:
        """Return how the arguments put the batch together."""
        return batch_layout(self.args)

    def current(self) -> dict[str, Any]:
        """Return every argument and the model's configuration, with the global batch and the share of warm-up."""
        made = read_model_config(self._model, read_arguments(self.args)).values
        found = {**argument_values(self.args), **made, GLOBAL_BATCH_SIZE: batch_layout(self.args).global_size}
        ratio = warm_up_ratio(self.args)
        return found if ratio is None else {**found, "warmup_ratio": ratio}

    def planned_epochs(self, description: TaskDescription) -> float | None:
        """Return how many full passes epochs or steps come to."""
        return planned_epochs(self.args, description.n_train)

    @property
    def precision(self) -> str | None:
        """What the arguments say."""
        return precision_of(self.args)

    def variant(self) -> str | None:
        """Return the version of the model's source and the weights it starts from."""
        return None if self._model is None else describe_variant(self._model)

    @property
    def notes(self) -> Collection[str]:
        """What is doubtful about the objective."""
        return [self._objective.problem] if self._objective.problem else []

    def broadcast(self, compute: Callable[[], _Answer]) -> _Answer:
        """Compute on process zero: if each asked the history, a run that ends in between would give them different values."""
        distributed = torch.distributed
        if self.args.world_size <= 1 or not (distributed.is_available() and distributed.is_initialized()):
            return compute()
        answer: list[Any] = [None]
        if self.args.process_index == 0:
            try:
                answer = [compute()]
            except Exception as error:  # the others wait for an answer, and this is one
                answer = [error]
        distributed.broadcast_object_list(answer, src=0)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]  # type: ignore[no-any-return]

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Write into a copy, with a note of it; where the arguments' own checks refuse the values, nothing is made."""
        if self._request.is_dry and self._stored is None:
            return decision
        values = {change.raw_name: change.new for change in decision.changes}
        try:
            result = rewritten(self.args, values) if values else self.args
            self.result = with_provenance(result, self._provenance(decision, provenance_of(self.args)))
        except Exception as error:  # advice must never stop a training
            where = type(self.args).__name__
            logger.warning(
                "metahp: nothing changed after all; the recommended values were refused by %s: %s: %s", where, type(error).__name__, error
            )
            return with_message(decision, "")
        return decision

    def report(self, doing: str, error: Exception) -> None:
        """Warn that something of ours failed."""
        logger.warning("metahp: nothing changed; %s failed with %s: %s", doing, type(error).__name__, error)
        logger.debug("The reason in full:", exc_info=error)

    def print(self, message: str) -> None:
        """Print to stderr, on process zero only."""
        if message and self.args.process_index == 0:
            print(message, file=sys.stderr, flush=True)

    @cached_property
    def _resumed(self) -> StoredRun | None:
        resume = self.args.resume_from_checkpoint
        return self.broadcast(lambda: stored_run_at(resume, self.args.output_dir)) if resume else None

    @cached_property
    def _of_model(self) -> dict[str, Setting]:
        """What of the model's configuration can be written from here, by canonical name: nothing, before there is a Trainer."""
        return {}

    @cached_property
    def _fixed(self) -> Mapping[str, str]:
        return fixed_fields(self.args)

    def _provenance(self, decision: TuningDecision, earlier: Provenance) -> Provenance:
        """Return the note that arguments carry from now on."""
        request = self._request
        asked = Target(request.task, request.objective, request.direction)
        rewrites = rewrites_of(decision.changes)
        if self._stored is not None:
            rewrites = resumed_rewrites(self._stored, decision.changes, argument_values(self.args))
        pending = () if decision.pending is None else (decision.pending.to_dict(),)
        target = earlier.target if asked == Target() else asked
        return Provenance(decision.followed_id, self._explicit, rewrites, target, pending, self._is_complete)
