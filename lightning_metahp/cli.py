"""``MetaHPCLI``: a ``LightningCLI`` whose configuration is tuned before anything is built, and whose runs are logged."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

from lightning_metahp.asking import objective_of_earlier_runs, planned_changes
from lightning_metahp.callback import MetaHPCallback
from lightning_metahp.cli_config import (
    Found,
    as_argument,
    describe_config,
    flat,
    has_callback,
    monitored_in,
    settings_in,
    tunable_arguments,
    why_ranks_cannot_agree,
    world_size_of,
)
from lightning_metahp.deciding import MODES
from lightning_metahp.guard import report, say
from lightning_metahp.objective import Objective, check_objective
from lightning_metahp.run_log import Advice
from lightning_metahp.sweeps import running_sweep
from metahp_tuning.batch_split import global_space
from metahp_tuning.memory_limit import known_limit, this_card
from metahp_tuning.messages import start_message
from metahp_tuning.precedence import Change, Constraint, Kept, check_keep, check_names, rewritable
from metamodel.data.task import TaskDescription
from metamodel.explanation import format_value
from metamodel.recommendation import Recommendation, load_recommendation, save_recommendation
from metamodel.space.batch import BatchLayout
from metamodel.space.dimensions import parse_space
from store.errors import InvalidArgumentError, MetaHPError
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE, conservative_names
from store.names import canonical_name, resolve_direction
from store.statuses import Source
from store.switches import is_off, pinned_recommendation

if TYPE_CHECKING:
    from store import History

PLAN_VARIABLE = "METAHP_CLI_PLAN"
"""Environment variable in which the processes that Lightning starts find what the first one decided."""


@dataclass(frozen=True)
class Wishes:
    """What the user asked of ``MetaHPCLI``; see there."""

    space: Mapping[str, Any] | None
    objective: str | None
    direction: str | None
    task: str | TaskDescription | None
    history: History | str | os.PathLike[str] | None
    mode: str
    keep: tuple[str, ...]
    max_startup_s: float


@dataclass(frozen=True)
class CliPlan:
    """What is rewritten: dotted key -> value for the configuration, and the same as changes for the row of the run."""

    values: Mapping[str, Any]
    changes: tuple[Change, ...] = ()
    recommendation_id: str | None = None
    message: str = ""


class MetaHPCLI(LightningCLI):
    """A ``LightningCLI`` that tunes the parsed configuration and adds a ``MetaHPCallback``, unless there is one already.

    It takes the arguments of ``LightningCLI``, and needs jsonargparse as that does. Arguments of the model (its layers too), the
    datamodule, the optimizer and the schedule can be rewritten, and the saved ``config.yaml`` is what ran. Values on the command line
    or in a config file are explicit: they stay, unless ``space`` names them. What is linked to a rewritten value follows it. With
    ``ckpt_path`` nothing is rewritten; nor with a ``MetaHParams`` among the callbacks, which then does its own work.

    Args:
        *args: As for ``LightningCLI``.
        space: Raw or canonical name, or dotted key -> Optuna distribution or list of values; None for what is safe.
        objective: Metric to improve; default: what a checkpoint or early stopping monitors, else that of earlier runs.
        direction: ``min`` or ``max``; default: inferred.
        task: Name of the task, or a ``TaskDescription``; default: recognised by data, model and objective.
        history: A ``History``, a path, or None for the default one.
        mode: ``best``, ``explore``, or ``dry-run``, which only says what it would do.
        keep: Names never to touch.
        max_startup_s: Time for a model that has to be fitted first, in seconds.
        **kwargs: As for ``LightningCLI``.

    Raises:
        SpaceError: If the space is malformed.
        InvalidArgumentError: If ``mode`` or ``keep`` is not possible.
        UnknownHyperparameterError: If ``space`` or ``keep`` names something that the configuration does not have.
        ObjectiveError: If the direction of the objective is unknown.

    Example:
        >>> MetaHPCLI(LitModel, LitData, objective="val_acc", space={"num_layers": [1, 2, 4]})  # doctest: +SKIP
    """

    def __init__(
        self,
        *args: Any,
        space: Mapping[str, Any] | None = None,
        objective: str | None = None,
        direction: str | None = None,
        task: str | TaskDescription | None = None,
        history: History | str | os.PathLike[str] | None = None,
        mode: str = "best",
        keep: Collection[str] | str = (),
        max_startup_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        if mode not in MODES:
            raise InvalidArgumentError(f"mode must be one of {', '.join(MODES)}, but got {mode!r}. Pass one of these.")
        if space is not None:
            space = {raw.rpartition(".")[2]: values for raw, values in space.items()}
            parse_space(space)
        checked = check_objective(objective, direction)
        self.wishes = Wishes(space, objective, checked, task, history, mode, check_keep(keep), float(max_startup_s))
        self.plan = CliPlan({})
        self._given_args: Any = None
        self._explicit: frozenset[str] = frozenset()
        super().__init__(*args, **kwargs)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, and remember which values were written by the user.

        Args:
            parser: The parser.
            args: As for ``LightningCLI``.
        """
        super().parse_arguments(parser, args)
        self._given_args = sys.argv[1:] if args is None else args
        try:
            is_object = isinstance(self._given_args, Mapping) or type(self._given_args).__name__ == "Namespace"
            with contextlib.redirect_stderr(io.StringIO()):  # what the parser says of this second reading would puzzle
                if is_object:
                    written = parser.parse_object(self._given_args, defaults=False)
                else:
                    written = parser.parse_args(tunable_arguments(self._given_args), defaults=False)
            self._explicit = frozenset(path for path, _ in flat(written))
        except (Exception, SystemExit) as error:  # nothing is rewritten where nobody knows what is the user's
            self._explicit = frozenset(path for path, _ in flat(self.config))
            report(self, "reading which values were given", error)

    def before_instantiate_classes(self) -> None:
        """Rewrite the configuration."""
        super().before_instantiate_classes()
        if is_off() or self.subcommand not in (None, "fit"):
            return
        try:
            plan = self._find_plan()
            if plan.values:
                self._write(plan)
            self.plan = plan
        except MetaHPError:
            raise
        except Exception as error:
            report(self, "rewriting the configuration", error)
            return
        if plan.message and int(os.environ.get("LOCAL_RANK", "0") or 0) == 0:
            say(plan.message)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with the callback in it.

        Args:
            **kwargs: Further arguments of the Trainer.
        """
        trainer = super().instantiate_trainer(**kwargs)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        ours = next((callback for callback in callbacks if isinstance(callback, MetaHPCallback)), None)
        if ours is None:
            wishes = self.wishes
            ours = MetaHPCallback(wishes.objective, wishes.direction, task=wishes.task, history=wishes.history)
            # First, since Lightning wants checkpoints last.
            callbacks.insert(0, ours)
        ours.run_log.advice = Advice(self.plan.recommendation_id, self.plan.changes, tuple(self.wishes.space or ()))
        return trainer

    @property
    def _own_config(self) -> Any:
        return self.config if self.subcommand is None else self.config[self.subcommand]

    def _find_plan(self) -> CliPlan:
        config = self._own_config
        is_trial = config.get("trainer.fast_dev_run") or config.get("trainer.overfit_batches") or config.get("trainer.barebones")
        if config.get("ckpt_path") or is_trial or has_callback(config, "MetaHParams"):
            return CliPlan({})
        inherited = os.environ.get(PLAN_VARIABLE)
        if int(os.environ.get("LOCAL_RANK", "0") or 0) > 0 and inherited:
            return _plan_from_text(inherited)
        sweep = running_sweep(None)
        if sweep is not None:
            return CliPlan({}, message=f"metahp: nothing changed; {sweep} chooses the hyperparameters of this run, which is recorded")
        problem = why_ranks_cannot_agree()
        if problem is not None and not pinned_recommendation():
            return CliPlan({}, message=f"metahp: nothing changed; {problem}, before they could agree. METAHP_PIN=<id> is the same for all.")
        plan = self._decide()
        os.environ[PLAN_VARIABLE] = _plan_as_text(plan)
        return plan

    def _decide(self) -> CliPlan:
        from store import open_history

        config, wishes = self._own_config, self.wishes
        prefix = "" if self.subcommand is None else f"{self.subcommand}."
        parser: Any = self._parser(self.subcommand)
        given = {path.removeprefix(prefix) for path in self._explicit}
        groups = [*parser._optimizers, *parser._lr_schedulers]
        wanted = {canonical_name(raw) for raw in wishes.space or ()}
        found, unclear = settings_in(config, given, _link_targets(parser), groups, wanted)
        settings = {name: item.setting for name, item in found.items()}
        names = [setting.raw_name for setting in settings.values()] + [item.raw_name for item in unclear]
        check_names(wishes.keep, [*names, *sorted(conservative_names())], "the configuration")
        if wishes.space is not None:
            check_names(
                [raw for raw in wishes.space if canonical_name(raw) != GLOBAL_BATCH_SIZE],
                names,
                "the configuration",
                "Use one of these names.",
            )
        wanted_here = (
            None
            if wishes.space is None
            else [PER_DEVICE_BATCH_SIZE if canonical_name(raw) == GLOBAL_BATCH_SIZE else raw for raw in wishes.space]
        )
        allowed, kept = rewritable(settings, wanted_here, wishes.keep)
        kept += [item for item in unclear if wanted_here is None or item.name in wanted]
        if not allowed:
            lines = ["metahp: nothing changed; nothing that may be rewritten is left"]
            return CliPlan({}, message="\n".join(lines + [f"  {k.raw_name} stays {format_value(k.value)}: {k.reason}" for k in kept]))
        opened: History | None = None
        try:
            opened = open_history(wishes.history)
            return self._ask(opened, found, allowed, kept)
        finally:
            if opened is not None and opened is not wishes.history:
                opened.close()

    def _ask(self, history: History, found: Mapping[str, Found], allowed: Mapping[str, Any], kept: list[Kept]) -> CliPlan:
        from metamodel import recommend

        config, wishes = self._own_config, self.wishes
        classes: tuple[Any, Any] = (self._model_class, self.datamodule_class)
        description = describe_config(config, *classes, wishes.task, tuple(wishes.space or ()))
        description, problem = self._with_objective(history, description)
        if problem is not None:
            return CliPlan({}, message=problem)
        layout = None
        size = found[PER_DEVICE_BATCH_SIZE].setting.value if PER_DEVICE_BATCH_SIZE in found else None
        if isinstance(size, int) and not isinstance(size, bool) and size >= 1:
            layout = BatchLayout(size, int(config.get("trainer.accumulate_grad_batches") or 1), world_size_of(config))
        constraints = [] if layout is None else _limits(history, description, layout)
        high = min((limit.high for limit in constraints), default=None)
        space = None
        if wishes.space is not None:
            space = {
                raw: v for raw, v in wishes.space.items() if canonical_name(raw) in allowed or canonical_name(raw) == GLOBAL_BATCH_SIZE
            }
        current = {item.setting.raw_name: item.setting.value for item in found.values()}
        current |= {} if layout is None else {GLOBAL_BATCH_SIZE: layout.global_size}
        pinned = pinned_recommendation()
        if pinned:
            found_one: Recommendation = load_recommendation(history, pinned)
        else:
            found_one = recommend(
                history,
                task=description,
                space=space if space is None or layout is None else global_space(space, layout),
                mode="best" if wishes.mode == "dry-run" else wishes.mode,
                current=current,
                allowed=list(allowed),
                limits={} if layout is None or high is None else {PER_DEVICE_BATCH_SIZE: high * layout.factor},
                max_fit_s=wishes.max_startup_s,
            )[0]
            if layout is not None and layout.factor != 1:
                renamed = {
                    GLOBAL_BATCH_SIZE if canonical_name(raw) == PER_DEVICE_BATCH_SIZE else raw: value
                    for raw, value in found_one.config.items()
                }
                found_one = replace(found_one, config=renamed)
        changes = planned_changes(found_one, allowed, constraints, layout, space, high)
        applied = [] if wishes.mode == "dry-run" else changes
        if not pinned:
            save_recommendation(history, found_one, current=current, changes=[change.to_dict() for change in applied])
        note = " ".join(filter(None, [found_one.evidence.note, "" if applied == changes else "Dry run: nothing was rewritten."]))
        message = start_message(found_one, changes, kept, description.objective, note)
        identity = None if wishes.mode == "dry-run" else found_one.id
        return CliPlan({found[change.name].path: change.new for change in applied}, tuple(applied), identity, message)

    def _with_objective(self, history: History, description: TaskDescription) -> tuple[TaskDescription, str | None]:
        wishes = self.wishes
        if description.objective is not None:
            return description, None
        known: Objective | None = None
        if wishes.objective is not None:
            known = Objective(wishes.objective, resolve_direction(wishes.objective, wishes.direction))
        elif not description.is_identified:
            return description, "metahp: nothing changed; there is no datamodule whose data could be seen. Pass task='a name for it'."
        known = known or monitored_in(self._own_config) or objective_of_earlier_runs(history, description)
        if known is None:
            return description, "metahp: nothing changed; the objective is not known. Pass it: MetaHPCLI(..., objective='val_loss')."
        if not description.is_identified:
            return description, "metahp: nothing changed; there is no datamodule whose data could be seen. Pass task='a name for it'."
        return description.with_objective(known.name, known.direction.value), None

    def _write(self, plan: CliPlan) -> None:
        """Parse again with the new values, so that links, types and ``config.yaml`` follow."""
        seed = self._own_config.get("seed_everything")
        args = self._given_args
        prefix = "" if self.subcommand is None else f"{self.subcommand}."
        if isinstance(args, Mapping) or type(args).__name__ == "Namespace":
            changed = args.clone() if hasattr(args, "clone") else json.loads(json.dumps(args))
            overlay = self.parser.parse_object(changed)
            for path, value in plan.values.items():
                overlay[f"{prefix}{path}"] = value
            self.config = self.parser.parse_object(overlay)
        else:
            self.config = self.parser.parse_args([*args, *(as_argument(path, value) for path, value in plan.values.items())])
        self._own_config["seed_everything"] = seed
        if "config_dump" in vars(self):  # older releases have written down by now what the objects will keep as their hparams
            dumped = json.loads(self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="json"))
            self.config_dump = dumped if self.subcommand is None else dumped[self.subcommand]


def _limits(history: History, description: TaskDescription, layout: BatchLayout) -> list[Constraint]:
    found = []
    if description.n_train:
        share = max(1, description.n_train // layout.world_size)
        found.append(Constraint(PER_DEVICE_BATCH_SIZE, share, f"the data set has {description.n_train} samples"))
    memory = known_limit(history, description, this_card())
    if memory is not None:
        found.append(Constraint(PER_DEVICE_BATCH_SIZE, memory.max_per_device, memory.reason))
    return sorted(found, key=lambda limit: limit.high)[:1]


def _link_targets(parser: Any) -> list[str]:
    """Return the dotted keys that follow from others: what is parsed there is computed, and cannot be given."""
    group = getattr(parser, "_links_group", None)
    targets = [getattr(action, "target", None) for action in getattr(group, "_group_actions", [])]
    return [str(target[0]) for target in targets if target]


def _plan_as_text(plan: CliPlan) -> str:
    changes = [change.to_dict() for change in plan.changes]
    return json.dumps({"values": dict(plan.values), "changes": changes, "id": plan.recommendation_id})


def _plan_from_text(text: str) -> CliPlan:
    plan = json.loads(text)
    changes = tuple(Change(**{**change, "source": Source(change["source"])}) for change in plan["changes"])
    return CliPlan(plan["values"], changes, plan["id"])
