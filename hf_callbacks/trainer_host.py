"""What the tuning decision needs to know of a built Trainer, and how it is written into its arguments and its model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from functools import cached_property
from typing import Any

from transformers import Trainer

from hf_callbacks.arguments import argument_values, rewritten
from hf_callbacks.arguments_host import ArgumentsHost
from hf_callbacks.checkpoint_note import resumed_rewrites, stored_run_at
from hf_callbacks.fixed_fields import fixed_fields
from hf_callbacks.model_values import fixed_model_values, set_model_values, trainer_model_settings
from hf_callbacks.provenance import provenance_of, rewrites_of, write_provenance
from hf_callbacks.trainer_inputs import given_arguments, given_datasets
from metahp_tuning.configured_values import base_model
from metahp_tuning.decision import TuningDecision, with_message
from metahp_tuning.host import TuningRequest
from metahp_tuning.precedence import Change, Setting
from metahp_tuning.resumption import StoredRun, plan_resumption
from metahp_tuning.task_description import pretrained_name
from store.hyperparameters import names_made_with_optimizer

logger = logging.getLogger(__name__)

_CONSUMED = (
    *("bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode"),
    *("label_smoothing_factor", "neftune_noise_alpha", "use_cache", "parallelism_config"),
)

_USED = "the Trainer used it when it was built; autoconfig() rewrites it before that"


class TrainerHost(ArgumentsHost):
    """A Trainer between its construction and ``train()``; what is decided goes into its arguments and its model, in place.

    Args:
        trainer: The Trainer.
        request: What the user asks for.
    """

    def __init__(self, trainer: Trainer, request: TuningRequest) -> None:
        # What a recommendation wrote before is no longer the default, so it is treated as user-set; one recommendation per run.
        train_dataset, eval_dataset = given_datasets(trainer)
        typed = provenance_of(trainer.args if provenance_of(trainer.args).carries_advice() else given_arguments(trainer))
        super().__init__(
            trainer.args,
            request,
            explicit=typed.explicit,
            is_complete=typed.is_complete,
            model=trainer.model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            trainer=trainer,
        )

    _trainer: Trainer

    def resumed_run(self) -> StoredRun | None:
        """Return none: ``train()`` is told of a checkpoint, and then gives the values back."""
        return None

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Write in place; where the Trainer refuses the values, everything is as it was."""
        if decision.followed_id is None:
            return decision
        args, earlier = self.args, provenance_of(self.args)
        of_args, of_model = self._split(decision.changes)
        base = base_model(self._trainer.model)
        old = {name: getattr(args, name) for name in of_args}
        old_model = {name: getattr(base.config, name) for name in of_model} if base is not None else {}
        try:
            if of_args:
                rewritten(args, of_args)  # the host's own checks, on a copy: what contradicts itself never reaches the Trainer
            self._put(of_args, of_model)
            rewrites = {**earlier.rewrites, **rewrites_of(decision.changes)}
            pending = (*earlier.pending, *([] if decision.pending is None else [decision.pending.to_dict()]))
            noted = self._provenance(decision, earlier)
            write_provenance(args, replace(noted, rewrites=rewrites, target=earlier.target, pending=pending))
        except Exception as error:  # advice must never stop a training
            for name, value in old.items():
                setattr(args, name, value)
            set_train_batch_size(self._trainer)
            if self._trainer.model_init is None:
                set_model_values(self._trainer, old_model)
            logger.warning("metahp: nothing changed after all; the Trainer refused: %s: %s", type(error).__name__, error)
            return with_message(decision, "")
        return decision

    def resume(self, resume_from_checkpoint: Any) -> None:
        """Give a Trainer that is about to resume the values its run began with, and name them. Does nothing for a fresh training.

        Args:
            resume_from_checkpoint: As ``train`` was given it.
        """
        stored = self.broadcast(lambda: stored_run_at(resume_from_checkpoint, self.args.output_dir)) if resume_from_checkpoint else None
        if stored is None:
            return
        earlier = provenance_of(self.args)
        plan = plan_resumption(stored, self.settings(), layout=self.layout(), written_since=earlier.rewrites)
        self._put(*self._split(plan.changes))
        if stored.rewrites or earlier.rewrites:
            rewrites = resumed_rewrites(stored, plan.changes, argument_values(self.args))
            write_provenance(self.args, replace(earlier, recommendation_id=stored.recommendation_id, rewrites=rewrites, pending=()))
        if stored.rewrites or plan.changes:
            self.print(plan.message)

    @cached_property
    def _of_model(self) -> dict[str, Setting]:
        return trainer_model_settings(self._trainer)

    @cached_property
    def _fixed(self) -> Mapping[str, str]:
        trainer = self._trainer
        fixed = {**fixed_fields(trainer.args, is_built=True), **dict.fromkeys(_CONSUMED, _USED)}
        if trainer.model is not None:
            fixed |= fixed_model_values(trainer.model, trainer.model_init, pretrained_name(trainer.model))
        # With model_init every train() makes a fresh optimizer from the arguments; without it an optimizer that exists stays.
        if trainer.optimizer is not None and trainer.model_init is None:
            fixed |= dict.fromkeys(names_made_with_optimizer(), "the Trainer already has an optimizer; call apply() before that is made")
        elif trainer.optimizer_cls_and_kwargs is not None:
            fixed |= dict.fromkeys(names_made_with_optimizer(), "you passed optimizer_cls_and_kwargs")
        return fixed

    def _split(self, changes: Iterable[Change]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the changes of fields and those of the model's configuration, as name -> value."""
        values = {change.raw_name: change.new for change in changes}
        of_args = {name: value for name, value in values.items() if hasattr(self.args, name)}
        return of_args, {name: value for name, value in values.items() if name not in of_args}

    def _put(self, of_args: Mapping[str, Any], of_model: Mapping[str, Any]) -> None:
        for name, value in of_args.items():
            old = getattr(self.args, name)
            setattr(self.args, name, type(old)(value) if isinstance(old, Enum) else value)  # the host compares with its enums
        if of_args:
            set_train_batch_size(self._trainer)
        set_model_values(self._trainer, of_model)


def set_train_batch_size(trainer: Trainer) -> None:
    """Make a built Trainer load the batch size its arguments hold.

    The Trainer copies it when it is built and has no public way to read the arguments again; this is what its own hyperparameter
    search does. The one private attribute this package touches.
    """
    if not hasattr(trainer, "_train_batch_size"):
        raise AttributeError("this version of transformers keeps the Trainer's batch size elsewhere")
    trainer._train_batch_size = trainer.args.train_batch_size
