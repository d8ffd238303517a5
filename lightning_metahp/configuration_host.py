"""A parsed LightningCLI configuration, as a host of the tuning decision."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from lightning_metahp.cli_config import (
    Found,
    describe_config,
    has_callback,
    model_copy,
    monitored_in,
    optimizer_in,
    precision_in,
    settings_in,
    why_ranks_cannot_agree,
    world_size_of,
)
from lightning_metahp.guard import report, say
from lightning_metahp.objective import named_objective
from lightning_metahp.sweeps import running_sweep
from lightning_metahp.validation import comparable, describe_limit
from metahp_tuning.decision import TuningDecision
from metahp_tuning.host import PlainHost, TuningRequest
from metahp_tuning.precedence import Setting, check_names
from metahp_tuning.run_length import batches_in_pass, planned_passes
from metamodel.data.task import TaskDescription
from metamodel.space.batch import BatchLayout
from store.hyperparameters import GLOBAL_BATCH_SIZE, LIGHTNING, PER_DEVICE_BATCH_SIZE, conservative_names
from store.names import canonical_name
from store.switches import pinned_recommendation

if TYPE_CHECKING:
    from lightning_metahp.cli import MetaHPCLI

DECISION_VARIABLE = "METAHP_CLI_DECISION"
"""Environment variable in which the processes that Lightning starts find what the first one decided."""

_Answer = TypeVar("_Answer")


class ConfigurationHost(PlainHost):
    """The configuration of a ``MetaHPCLI``, before anything is built.

    Args:
        cli: The command line, its arguments parsed.
        request: What the user asks for.
        given: Dotted keys that were written on the command line or in a config file.
    """

    framework = LIGHTNING
    needs_known_task = True
    unknown_task_hint = "There is no datamodule whose data could be seen. Pass task='a name for it'."
    unknown_objective_hint = "Pass it: MetaHPCLI(..., objective='val_loss')."

    def __init__(self, cli: MetaHPCLI, request: TuningRequest, given: frozenset[str]) -> None:
        self._cli = cli
        self._request = request
        self._given = given

    @property
    def _config(self) -> Any:
        return self._cli.own_config

    @cached_property
    def _found(self) -> dict[str, list[Found]]:
        parser: Any = self._cli.own_parser
        groups = [*parser._optimizers, *parser._lr_schedulers]
        wanted = {canonical_name(raw) for raw in self._request.tunable}
        return settings_in(self._config, self._given, _link_targets(parser), groups, wanted)

    def check(self, request: TuningRequest) -> TuningRequest:
        """Check that the configuration has the names of ``space`` and ``keep``."""
        if self._is_left_alone:
            return request
        names = [place[0].setting.raw_name for place in self._found.values()]
        where = "the configuration"
        check_names(request.keep, [*names, *sorted(conservative_names())], where)
        check_names([raw for raw in request.tunable if canonical_name(raw) != GLOBAL_BATCH_SIZE], names, where, "Use one of these names.")
        return request

    @cached_property
    def _is_left_alone(self) -> bool:
        config = self._config
        is_trial = config.get("trainer.fast_dev_run") or config.get("trainer.overfit_batches") or config.get("trainer.barebones")
        return bool(config.get("ckpt_path") or is_trial or self._is_shared)

    @cached_property
    def _is_shared(self) -> bool:
        return has_callback(self._config, "MetaHParams")

    def standing_down(self) -> str | None:
        """Leave a resumed run, a trial of the code, a sweep and processes that could not agree alone."""
        if self._is_left_alone:
            return "MetaHParams among the callbacks tunes this run; take it out to have MetaHPCLI do it" if self._is_shared else ""
        if self._inherited is not None:
            return None
        sweep = running_sweep(None)
        if sweep is not None:
            return f"{sweep} chooses the hyperparameters of this run, which is recorded"
        problem = why_ranks_cannot_agree()
        if problem is not None and pinned_recommendation() is None:
            return f"{problem}, before they could agree. METAHP_PIN=<id> is the same for all."
        return None

    @property
    def _inherited(self) -> str | None:
        """What the first process decided, where this is another one."""
        return os.environ.get(DECISION_VARIABLE) if _local_rank() > 0 else None

    def settings(self) -> Mapping[str, Setting]:
        """Return the values of the configuration."""
        return {name: places[0].setting for name, places in self._found.items()}

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        """Say which keys both mean a name."""
        places = self._found[name]
        return None if len(places) == 1 else f"{' and '.join(place.path for place in places)} both mean it; link one to the other"

    @cached_property
    def _model(self) -> Any:
        return model_copy(self._config, self._cli.default_model_class)

    def describe(self) -> TaskDescription:
        """Describe what the configuration will train."""
        request = self._request
        classes: tuple[Any, Any] = (self._cli.default_model_class, self._cli.datamodule_class)
        description = describe_config(self._config, *classes, self._model, request.task, request.tunable)
        objective = monitored_in(self._config)
        if request.objective is not None:
            objective = named_objective(request.objective, request.direction)
        if description.objective is None and objective is not None:
            description = description.with_objective(objective.name, objective.direction.value)
        return comparable(description, describe_limit(self._config.get("trainer.limit_val_batches")), objective)

    def layout(self) -> BatchLayout | None:
        """Return how the batch is put together."""
        places = self._found.get(PER_DEVICE_BATCH_SIZE)
        size = None if places is None else places[0].setting.value
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            return None
        return BatchLayout(size, int(self._config.get("trainer.accumulate_grad_batches") or 1), world_size_of(self._config))

    def current(self) -> dict[str, Any]:
        """Return every value of the configuration, with the optimizer's name."""
        layout = self.layout()
        values = {setting.raw_name: setting.value for setting in self.settings().values()}
        optimizer = optimizer_in(self._config, self._cli.own_parser)
        known = {} if optimizer is None or any(canonical_name(raw) == "optimizer" for raw in values) else {"optimizer": optimizer}
        return {**known, **values, **({} if layout is None else {GLOBAL_BATCH_SIZE: layout.global_size})}

    def planned_epochs(self, description: TaskDescription) -> float | None:
        """Return how many full passes the configuration's limits of epochs, steps and batches come to."""
        epochs, steps = (self._config.get(f"trainer.{name}") for name in ("max_epochs", "max_steps"))
        limit, layout = self._config.get("trainer.limit_train_batches"), self.layout()
        return planned_passes(
            None if epochs == -1 else epochs,
            None if steps == -1 else steps,
            n_batches=batches_in_pass(description.n_train, layout),
            limit=None if limit == 1.0 and isinstance(limit, float) else limit,
            accumulation=1 if layout is None else layout.accumulation,
        )

    @property
    def precision(self) -> str | None:
        """How numbers will be held."""
        return precision_in(self._config)

    def variant(self) -> str | None:
        """Return the version of the model's source."""
        if self._model is None:
            return None
        from metahp_tuning.class_source import model_variant

        return model_variant(self._model)

    def broadcast(self, compute: Callable[[], _Answer]) -> _Answer:
        """Compute in the first process; the others of this machine find the decision in their environment."""
        if self._inherited is None:
            # Where deciding or writing fails, the others are to change nothing, too.
            if _local_rank() == 0:
                os.environ[DECISION_VARIABLE] = json.dumps(TuningDecision().to_dict())
            return compute()
        return TuningDecision.from_dict(json.loads(self._inherited))  # type: ignore[return-value]  # tune() computes nothing else

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Write into the configuration, and leave the decision to the processes that Lightning starts."""
        values = {self._found[change.name][0].path: change.new for change in decision.changes}
        if values:
            self._cli.rewrite(values)
        if _local_rank() == 0:
            os.environ[DECISION_VARIABLE] = json.dumps(decision.to_dict())
        return decision

    def report(self, doing: str, error: Exception) -> None:
        """Warn once that something of ours failed."""
        report(self._cli, doing, error)

    def print(self, message: str) -> None:
        """Print a message in the first process."""
        if _local_rank() == 0:
            say(message)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0") or 0)


def _link_targets(parser: Any) -> list[str]:
    """Return the dotted keys that follow from others: what is parsed there is computed, and cannot be given."""
    group = getattr(parser, "_links_group", None)
    targets = [getattr(action, "target", None) for action in getattr(group, "_group_actions", [])]
    return [str(target[0]) for target in targets if target]
