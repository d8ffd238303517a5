"""A loop of one's own as a host: a bare PyTorch loop, scikit-learn, Keras. Its settings are a mapping."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from metahp_tuning.decision import TuningDecision
from metahp_tuning.host import PlainHost, TuningRequest
from metahp_tuning.precedence import Setting, check_names
from metahp_tuning.run_length import batches_in_pass, planned_passes
from metamodel.data.task import TaskDescription
from metamodel.space.batch import BatchLayout
from metamodel.space.dimensions import is_number
from store.errors import MetaHPError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE, Role, conservative_names, hyperparameter
from store.names import canonical_name, canonical_names, resolve_direction
from store.statuses import Source
from store.switches import pinned_recommendation

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")


class LoopHost(PlainHost):
    """A training whose loop is the user's own.

    Args:
        config: Raw name -> value.
        request: What the user asks for.
        model: The model, None where it was not passed.
        train_dataset: The training data, likewise.
        world_size: Processes that train together, None to find out.
    """

    framework = "python"
    needs_known_task = True
    unknown_task_hint = "Pass task='a name for it', or the torch model and data set as model= and train_dataset=."
    unknown_objective_hint = "Pass objective='val_loss', and direction='min' or 'max' where the name does not say it."

    def __init__(self, config: Mapping[str, Any], request: TuningRequest, model: Any, train_dataset: Any, world_size: int | None) -> None:
        self._config = dict(config)
        self._request = request
        self._model = model
        self._described = cache(lambda: _described(model, train_dataset))
        self._world_size = process_count() if world_size is None else world_size
        names = canonical_names(list(config))
        if PER_DEVICE_BATCH_SIZE not in names.values():
            # A loop that knows the batch as a whole only: the one number is written, however the loop splits it.
            names = {raw: PER_DEVICE_BATCH_SIZE if name == GLOBAL_BATCH_SIZE else name for raw, name in names.items()}
            self._is_batch_global = PER_DEVICE_BATCH_SIZE in names.values()
        else:
            self._is_batch_global = False
        plain = {raw: _plain(value) for raw, value in config.items()}
        # The call itself asks for other values, so what is passed is a fallback; what must stay is named in keep.
        self._settings = {names[raw]: Setting(raw, value, Source.DEFAULT) for raw, value in plain.items() if _is_tunable(names[raw], value)}

    def check(self, request: TuningRequest) -> TuningRequest:
        """Check that every name of ``space`` and ``keep`` is in the configuration."""
        where, advice = "the configuration passed to suggest()", "Pass its present value in the configuration, too."
        kept = [raw for raw in request.keep if canonical_name(raw) not in conservative_names() and not self._has_batch(raw)]
        check_names(kept, list(self._config), where, advice)
        check_names([raw for raw in request.tunable if not self._has_batch(raw)], list(self._config), where, advice)
        return request

    def standing_down(self) -> str | None:
        """Return why several processes would decide each for itself, None where one decides for all."""
        if self._world_size == 1 or _process_group() is not None or pinned_recommendation() or process_count() == 1:
            return None
        return (
            "several processes train together and cannot agree yet. Call suggest() after torch.distributed.init_process_group() "
            "(with Accelerate: after Accelerator()), or set METAHP_PIN=<id>."
        )

    def settings(self) -> Mapping[str, Setting]:
        """Return the values passed."""
        return self._settings

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        """Return which names of the configuration both mean a hyperparameter."""
        batches = {PER_DEVICE_BATCH_SIZE, GLOBAL_BATCH_SIZE}
        meant = batches if name in batches else {name}
        spellings = [raw for raw in self._config if canonical_name(raw) in meant]
        return None if len(spellings) < 2 else f"{' and '.join(spellings)} both mean {name}; pass one of them"

    def describe(self) -> TaskDescription:
        """Describe the task by its name, or by data and model where they were passed."""
        request = self._request
        objective, direction = request.objective, request.direction
        if objective is not None:
            direction = resolve_direction(objective, direction).value
        task = request.task
        if isinstance(task, TaskDescription):
            return task if task.objective is not None or objective is None else task.with_objective(objective, direction)
        return replace(TaskDescription(**self._described()), name=task, objective=objective, direction=direction)

    def layout(self) -> BatchLayout | None:
        """Return how the batch is put together."""
        setting = self._settings.get(PER_DEVICE_BATCH_SIZE)
        if setting is None or isinstance(setting.value, bool) or not isinstance(setting.value, int) or setting.value < 1:
            return None
        if self._is_batch_global:
            return BatchLayout(setting.value, 1, 1)
        accumulation = self._settings.get(ACCUMULATION)
        steps = accumulation.value if accumulation is not None and isinstance(accumulation.value, int) else 1
        return BatchLayout(setting.value, max(1, steps), self._world_size)

    def current(self) -> dict[str, Any]:
        """Return the configuration, with the global batch."""
        layout = self.layout()
        if layout is None or self._is_batch_global:
            return dict(self._config)
        return {**self._config, GLOBAL_BATCH_SIZE: layout.global_size}

    def planned_epochs(self, description: TaskDescription) -> float | None:
        """Return what the configuration says: epochs, or steps where the number of samples is known."""
        known = {canonical_name(raw): _plain(value) for raw, value in self._config.items()}
        epochs, steps = (known[name] if is_number(known.get(name)) and known[name] > 0 else None for name in ("num_epochs", "max_steps"))
        layout = self.layout()
        n_batches, accumulation = batches_in_pass(description.n_train, layout), 1 if layout is None else layout.accumulation
        return planned_passes(epochs, steps, n_batches=n_batches, accumulation=accumulation)

    @property
    def precision(self) -> str | None:
        """What the configuration says."""
        found = self._config.get("precision")
        return None if found is None else str(found)

    def variant(self) -> str | None:
        """Return the version of a torch module's source."""
        if not _is_torch_module(self._model):
            return None
        from metahp_tuning.class_source import model_variant

        return model_variant(self._model)

    def broadcast(self, compute: Callable[[], _Answer]) -> _Answer:
        """Compute on rank zero of the process group, where there is one, and return the same answer on every rank."""
        group = _process_group()
        if group is None:
            return compute()
        answer: list[Any] = [None, None]
        if group.get_rank() == 0:
            try:
                answer = [compute(), None]
            except Exception as error:  # the others wait for an answer, so there has to be one
                answer = [None, error if isinstance(error, MetaHPError) else RuntimeError(f"{type(error).__name__}: {error}")]
        group.broadcast_object_list(answer, src=0)
        value, failure = answer
        if failure is not None:
            raise failure
        return value  # type: ignore[no-any-return]  # it is what compute gave on rank zero

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Return the decision: the mapping that ``suggest`` returns is made of it."""
        return decision

    def report(self, doing: str, error: Exception) -> None:
        """Warn that something of ours failed."""
        _log.warning("metahp: nothing changed; %s failed with %s: %s", doing, type(error).__name__, error)
        _log.debug("The reason in full:", exc_info=error)

    def print(self, message: str) -> None:
        """Print to stderr, on the first process only."""
        group = _process_group()
        rank = group.get_rank() if group is not None else _launched("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
        if not rank:
            print(message, file=sys.stderr, flush=True)

    def run_fields(self) -> dict[str, Any]:
        """Return what is known of the run, by the names of the arguments of ``History.start_run``."""
        try:
            description, variant = self.describe(), self.variant()
        except Exception as error:  # an odd model or data set costs what it would tell, never the training
            self.report("describing the run", error)
            return {}
        known = {
            # A name is passed on as a name, so that it also finds a recognised task that is called so.
            "task": description.name if isinstance(self._request.task, str) else description if description.is_identified else None,
            "objective": description.objective,
            "direction": description.direction,
            "description": description.to_dict(),
            "model_class": description.model_class,
            "model_family": description.model_family,
            "n_parameters": description.n_parameters,
            "variant": variant,
        }
        return {name: value for name, value in known.items() if value is not None}

    def _has_batch(self, raw: str) -> bool:
        return canonical_name(raw) in (GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE) and PER_DEVICE_BATCH_SIZE in self._settings


def process_count() -> int:
    """Return how many processes train together, as the process group or the launcher says."""
    group = _process_group()
    if group is not None:
        return int(group.get_world_size())
    return max(1, _launched("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE") or 1)


def _launched(*names: str) -> int | None:
    """Return the first whole number among environment variables of launchers; an interactive SLURM shell launches nothing."""
    is_shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive") or "SLURM_PROCID" not in os.environ
    found = [os.environ.get(name, "") for name in names if not (is_shell and name.startswith("SLURM"))]
    return next((int(text) for text in found if text.isdecimal()), None)


def _process_group() -> Any:
    """Return ``torch.distributed`` where several processes are connected by it; torch is never loaded for that."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() < 2:
        return None
    return distributed


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value


def _is_tunable(name: str, value: Any) -> bool:
    row = hyperparameter(name)
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return is_plain and (row is None or row.role is not Role.RUN)


def _is_torch_module(model: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _described(model: Any, train_dataset: Any) -> dict[str, Any]:
    """Return what a model and a data set say of themselves. Without a torch module that is too little to recognise a task by."""
    known: dict[str, Any] = {}
    if _is_torch_module(model):
        from metahp_tuning.data_description import describe_dataset
        from metahp_tuning.task_description import describe_module

        known = {**describe_dataset(_unbatched(train_dataset)), **describe_module(model)}
    else:
        with suppress(Exception):  # a stream has no length, and a user's own __len__ may fail in any way
            # The data sets of a dictionary are counted together; a dictionary has no samples of its own.
            parts = [_unbatched(part) for part in (train_dataset.values() if isinstance(train_dataset, Mapping) else [train_dataset])]
            known["n_train"] = sum(len(part) for part in parts)
        known["model_class"] = None if model is None else type(model).__qualname__
    return {name: value for name, value in known.items() if value is not None}


def _unbatched(data: Any) -> Any:
    """Return the data set behind a loader. The length of what hands out batches is no number of samples: of that nothing is read.

    Raises:
        TypeError: If there is no data set behind it.
    """
    dataset = getattr(data, "dataset", data)
    if dataset is data and (hasattr(data, "batch_size") or hasattr(data, "element_spec")):
        raise TypeError(f"{type(data).__name__} hands out batches")
    return dataset
