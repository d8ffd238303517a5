"""What the tuning decision needs to know of SetFit's arguments, and how it is written into a copy of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_callbacks.arguments import RecordedHParams, batch_layout, warm_up_ratio
from hf_callbacks.arguments_host import ArgumentsHost
from hf_callbacks.objective import EvaluationObjective
from hf_callbacks.provenance import provenance_of, with_provenance
from hf_callbacks.setfit_arguments import first_phase, rewritten_setfit, setfit_sources, setfit_values, unused_in_head
from hf_callbacks.space_checks import check_names
from hf_callbacks.trainer_description import describe_task, read_model_config
from metahp_tuning.decision import TuningDecision, with_message
from metahp_tuning.host import TuningRequest
from metahp_tuning.precedence import Setting
from metamodel.data.task import TaskDescription
from store.hyperparameters import GLOBAL_BATCH_SIZE
from store.names import canonical_names


class SetFitHost(ArgumentsHost):
    """SetFit's arguments before there is a Trainer. Everything is as for the arguments of its first phase, under SetFit's names.

    Args:
        args: SetFit's arguments as they would be without us.
        request: What the user asks for.
        **inputs: As for any arguments: ``explicit``, ``model``, ``train_dataset``, ``eval_dataset``.
    """

    def __init__(self, args: Any, request: TuningRequest, **inputs: Any) -> None:
        super().__init__(first_phase(args), request, **inputs)
        self._given = args
        self._whole = inputs.get("model")
        if request.objective is None:  # the metric is an argument of SetFit's Trainer
            self._objective = EvaluationObjective()
        self.unknown_objective_hint = "Pass objective='accuracy', or whatever metric SetFit's Trainer is given."

    def check(self, request: TuningRequest) -> TuningRequest:
        """Check names against SetFit's fields."""
        names = list(setfit_values(self._given))
        check_names([*request.keep, *(request.space or ())], self._given, names)
        return request

    def resumed_run(self) -> None:
        """Return none: SetFit resumes nothing."""
        return

    def settings(self) -> Mapping[str, Setting]:
        """Return SetFit's fields, each phase's value on its own."""
        values, sources = setfit_values(self._given), setfit_sources(self._given, self._explicit)
        plain = {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}
        return {canonical: Setting(raw, plain[raw], sources[raw]) for raw, canonical in canonical_names(list(plain)).items()}

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        """Return why a value of the second phase has no effect; None where the head is unknown."""
        return unused_in_head(self._given, self._whole).get(setting.raw_name) or super().why_fixed(name, setting)

    def describe(self) -> TaskDescription:
        """Describe what is trained."""
        train_dataset, eval_dataset = self._datasets
        return describe_task(
            self._given,
            model=self._model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            task=self._request.task,
            objective=self._objective,
        )

    def current(self) -> dict[str, Any]:
        """Return SetFit's values, with the global batch and the share of warm-up."""
        of_model = read_model_config(self._model, RecordedHParams()).values
        found = {**setfit_values(self._given), **of_model, GLOBAL_BATCH_SIZE: batch_layout(self.args).global_size}
        ratio = warm_up_ratio(self.args)
        return found if ratio is None else {**found, "warmup_ratio": ratio}

    def planned_epochs(self, description: TaskDescription) -> float | None:
        """Return the epochs of the first phase; how many pairs ``max_steps`` is of is unknown."""
        return None if self.args.max_steps > 0 else float(self.args.num_train_epochs)

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Write into a copy, with a note of it; where SetFit's own checks refuse the values, nothing is made."""
        if self._request.is_dry:
            return decision
        try:
            made = rewritten_setfit(self._given, {change.raw_name: change.new for change in decision.changes})
            self.result = with_provenance(made, self._provenance(decision, provenance_of(self._given)))
        except Exception as error:  # advice must never stop a training
            self.report("writing the recommended values", error)
            return with_message(decision, "")
        return decision
