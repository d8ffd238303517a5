"""A fit that is about to start, as a host of the tuning decision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from types import FunctionType
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp import dropout
from lightning_metahp.fixed_settings import FitContext, why_fixed
from lightning_metahp.guard import report, say
from lightning_metahp.objective import Objective
from lightning_metahp.ranks import agree, all_equal
from lightning_metahp.run_length import planned_epochs
from lightning_metahp.settings import TRAINER_FIELDS, datamodule_of, held_optimizers, loaded_batch_size, nested_places, trainer_settings
from lightning_metahp.sweeps import running_sweep
from lightning_metahp.task_readout import describe_task, peek_at_loaders
from lightning_metahp.trainer_internals import Resume, loaders_passed_to_fit, optimizer_is_replaced
from lightning_metahp.validation import comparable, planned_limit
from lightning_metahp.write_targets import WriteTarget, apply_changes, fingerprint, undo
from lightning_metahp.written_optimizer import written_optimizer
from metahp_tuning.decision import TuningDecision
from metahp_tuning.host import PlainHost, TuningRequest
from metahp_tuning.messages import nothing_changed
from metahp_tuning.optimizer_description import optimizer_name
from metahp_tuning.precedence import Setting, check_names
from metahp_tuning.resumption import StoredRun
from metamodel.data.task import TaskDescription
from metamodel.space.batch import BatchLayout
from store.errors import UnknownHyperparameterError
from store.hyperparameters import GLOBAL_BATCH_SIZE, LIGHTNING, PER_DEVICE_BATCH_SIZE, conservative_names, names_in_optimizer_state
from store.names import canonical_name, canonical_names
from store.user_warnings import warn_user

_Answer = TypeVar("_Answer")


class FitHost(PlainHost):
    """A Trainer in its ``setup``, with the module it is going to fit.

    Args:
        owner: The callback, which warns once.
        trainer: The trainer.
        module: The module.
        request: What the user asks for.
        objective: The objective as far as it is known.
        resume: What is known of the run that this one resumes.
        out_of_reach: Hooks of the module that have run already, or that nobody will call.

    Attributes:
        targets: What was written, for ``undo``.
        is_checkpoint_late: Whether a checkpoint is resumed that only the Trainer can read, later.
    """

    framework = LIGHTNING
    needs_known_task = True
    unknown_task_hint = (
        "The training data cannot be seen before the start. Pass task='a name for it' to MetaHParams, or give the LightningDataModule or "
        "module a train_dataloader() that works before the module's setup()."
    )
    unknown_objective_hint = (
        "Nothing says it before the first validation, and no earlier run of this task does. Pass it: MetaHParams(objective='val_loss'), or "
        "set monitor= of ModelCheckpoint."
    )

    def __init__(
        self,
        owner: object,
        trainer: Trainer,
        module: LightningModule,
        request: TuningRequest,
        *,
        objective: Objective | None,
        resume: Resume,
        out_of_reach: tuple[str, ...],
    ) -> None:
        self._owner = owner
        self._trainer = trainer
        self._module = module
        self._request = request
        self._objective = objective
        self._resume = resume
        self._context = FitContext(trainer, module, out_of_reach, resume.is_known)
        self.targets: list[WriteTarget] = []
        self.is_checkpoint_late = False

    @property
    def is_resumed(self) -> bool:
        """Whether this fit is known to resume a run."""
        return self._resume.path is not None

    def check(self, request: TuningRequest) -> TuningRequest:
        """Check that module, datamodule or Trainer have the names of ``space`` and ``keep``, and call values inside of others by theirs."""
        space = None if request.space is None else {self._full_name(raw): values for raw, values in request.space.items()}
        request = replace(request, space=space, keep=tuple(map(self._full_name, request.keep)))
        settings = self._settings
        datamodule = datamodule_of(self._trainer)
        where = type(self._module).__name__ + (f" or {type(datamodule).__name__}" if datamodule is not None else "")
        available = sorted(setting.raw_name for setting in settings.values())
        check_names(request.keep, [*available, *self._context.trainer_settings, *sorted(conservative_names())], where)
        advice = "Use one of these names, or save_hyperparameters() with it."
        if optimizer_is_replaced(self._module):
            advice = "LightningCLI builds the optimizer itself, before any callback: use MetaHPCLI, which rewrites its arguments."
        elif self._hidden_arguments:
            advice = self._hidden_arguments
        is_reached = PER_DEVICE_BATCH_SIZE in settings
        names = [raw for raw in request.tunable if not (canonical_name(raw) == GLOBAL_BATCH_SIZE and is_reached)]
        check_names(names, available, where, advice)
        return request

    def _full_name(self, name: str) -> str:
        """Return what a value inside of another is called, for ``optim.lr`` or its whole path.

        Raises:
            UnknownHyperparameterError: If the name is that of something which holds values by name.
        """
        own = self._context.own
        paths = {f".{place.holder}.{place.path}": raw for holder in self._context.holders for raw, place in nested_places(holder).items()}
        if name in own:
            return name
        meant = {raw for path, raw in paths.items() if "." in name and path.endswith(f".{name}")}
        inside = [path[1:] for path in paths if f".{name}." in path]
        if not meant and inside and canonical_name(name) not in map(canonical_name, own):
            raise UnknownHyperparameterError(
                f"A name to rewrite must be one value, but {name!r} holds several; it has: {', '.join(sorted(inside))}. Use one of these."
            )
        return meant.pop() if len(meant) == 1 else name

    def standing_down(self) -> str | None:
        """Leave the values to a search, and those of a checkpoint that only the Trainer can read to ``on_load_checkpoint``."""
        if self._resume.path is not None:
            return ""
        sweep = running_sweep(self._trainer)
        return None if sweep is None else f"{sweep} chooses the hyperparameters of this run, which is recorded"

    def resumed_run(self) -> StoredRun | None:
        """Read the checkpoint, where this process can."""
        if self._resume.path is None:
            return None
        from lightning_metahp.checkpoint_state import read_checkpoint  # few runs resume another

        stored = agree(self._trainer, lambda: read_checkpoint(self._resume))
        self.is_checkpoint_late = not stored.is_complete
        return stored if stored.is_complete else None

    def settings(self) -> Mapping[str, Setting]:
        """Return what could be rewritten.

        A batch size is there even where only a loader has it; dropout where only layers have it, and the Trainer's own values, where the
        space names them or a run is resumed.
        """
        return self._settings

    @cached_property
    def _settings(self) -> dict[str, Setting]:
        own = self._context.own
        names = canonical_names(list(own))
        named = {self._full_name(raw) for raw in (*self._request.tunable, *self._request.keep)}
        found = {names[raw]: setting for raw, setting in own.items() if "." not in raw or raw in named}
        passed = loaded_batch_size(loaders_passed_to_fit(self._trainer))
        if passed is not None:
            found.setdefault(PER_DEVICE_BATCH_SIZE, Setting(PER_DEVICE_BATCH_SIZE, passed))
        is_resumed = self._resume.path is not None
        wanted = {canonical_name(raw) for raw in self._request.tunable}
        rates = dropout.rates(self._module) if is_resumed or "dropout" in wanted else []
        if rates:
            found.setdefault("dropout", Setting("dropout", rates[0]))
        for name in TRAINER_FIELDS if is_resumed else wanted & TRAINER_FIELDS.keys():
            setting = self._context.trainer_settings[TRAINER_FIELDS[name]]
            found[name] = found.get(name, setting) if is_resumed else setting
        return found

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        """Say why a value is too late, or not ours, to change."""
        return why_fixed(self._context, name, setting)

    def describe(self) -> TaskDescription:
        """Describe the task from a look at the data."""
        request = self._request
        description = describe_task(
            self._trainer, self._module, self._loaders, task=request.task, objective=self._objective, tunable=request.tunable
        )
        return comparable(description, planned_limit(self._trainer, self._module), self._objective)

    @cached_property
    def _loaders(self) -> Any:
        return peek_at_loaders(self._trainer, self._module)

    def layout(self) -> BatchLayout | None:
        """Return how the batch is put together."""
        setting = self._settings.get(PER_DEVICE_BATCH_SIZE)
        size = setting.value if setting is not None else loaded_batch_size(self._loaders)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            return None
        return BatchLayout(size, max(1, self._trainer.accumulate_grad_batches), max(1, self._trainer.world_size))

    def current(self) -> dict[str, Any]:
        """Return every hyperparameter in force without us, the optimizer's name where the source says it."""
        own = {setting.raw_name: setting.value for setting in self._settings.values()}
        # Read anew: making the loaders may have set a seed.
        of_trainer = {name: setting.value for name, setting in trainer_settings(self._trainer).items()}
        written = {} if optimizer_is_replaced(self._module) else written_optimizer(self._module)
        taken = {canonical_name(raw) for raw, value in own.items() if value is not None}
        written = {name: value for name, value in written.items() if name not in taken}
        layout = self.layout()
        own = {raw: value for raw, value in own.items() if canonical_name(raw) not in written}
        return {**of_trainer, **written, **own, **({} if layout is None else {GLOBAL_BATCH_SIZE: layout.global_size})}

    def planned_epochs(self, description: TaskDescription) -> float | None:
        """Return how many full passes the Trainer's limits of epochs, steps and batches come to."""
        return planned_epochs(self._trainer, self._module, self._loaders)

    @property
    def precision(self) -> str | None:
        """How numbers are held in training."""
        return str(self._trainer.precision)

    def variant(self) -> str | None:
        """Return the version of the module's source."""
        from metahp_tuning.class_source import model_variant

        return model_variant(self._module)

    def why_nothing_left(self) -> str:
        """Say what of the module as a whole leaves nothing to tune."""
        if optimizer_is_replaced(self._module):
            return (
                "no tunable hyperparameter remains (LightningCLI builds the optimizer itself, before any callback; MetaHPCLI rewrites its "
                "arguments)"
            )
        if self._hidden_arguments:
            return f"no tunable hyperparameter remains. {self._hidden_arguments}"
        if not self._settings:
            return f"{type(self._module).__name__} has no hyperparameters; call self.save_hyperparameters() in its __init__"
        return ""

    @property
    def notes(self) -> Collection[str]:
        """What would have the optimizer's values tuned."""
        return [self._hidden_arguments] if self._hidden_arguments else []

    @property
    def _hidden_arguments(self) -> str:
        """What to do where the arguments of the optimizer stand inside a function; empty where they do not."""
        if names_in_optimizer_state() & self._settings.keys():
            return ""
        held = held_optimizers(self._module)
        name = next((raw for raw, value in held.items() if isinstance(value, FunctionType)), None)
        if name is None:
            return ""
        way = f"functools.partial(torch.optim.{optimizer_name(held[name])}, lr=...)"
        return f"The values of the optimizer stand inside the function {name}: pass {way} to have them tuned."

    def broadcast(self, compute: Callable[[], _Answer]) -> _Answer:
        """Compute on rank zero and return the same answer on every rank."""
        return agree(self._trainer, compute)

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Write the same values on every rank, or on none."""
        failure: Exception | None = None
        try:
            self.targets = apply_changes(decision.changes, self._module, datamodule_of(self._trainer), self._trainer)
        except Exception as error:
            failure = error
        if not all_equal(self._trainer, "failed" if failure is not None else fingerprint(self.targets)):
            undo(self.targets)
            self.targets = []
            decision = TuningDecision(is_failed=True)
            if failure is None:
                warn_user(nothing_changed("ranks computed different values; check that every rank runs the same code"))
        if failure is not None:
            raise failure
        return decision

    def report(self, doing: str, error: Exception) -> None:
        """Warn once that something of ours failed."""
        report(self._owner, doing, error)

    def print(self, message: str) -> None:
        """Print a message, on rank zero only."""
        if self._trainer.is_global_zero:
            say(message)


def resume_late(host: FitHost, checkpoint_path: str, checkpoint: Mapping[str, Any]) -> TuningDecision:
    """Follow a checkpoint that the Trainer has just loaded; only values that change no shape are still in time."""
    from lightning_metahp.checkpoint_state import stored_run_in
    from metahp_tuning.resumption import plan_resumption

    undo(host.targets)
    stored = replace(stored_run_in(checkpoint_path, checkpoint), is_complete=False)
    plan = plan_resumption(stored, host.settings(), layout=None if stored.global_batch_size is None else host.layout())
    decision = host.write(TuningDecision(None, plan.changes, plan.message, stored.recommendation_id))
    if decision.message:
        host.print(decision.message)
    return decision
