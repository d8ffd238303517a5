"""Reading ``TrainingArguments``: every field as a hyperparameter, who set it, and writing new values into a copy."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from accelerate.state import is_initialized  # type: ignore[import-untyped]
from transformers import TrainingArguments

from hf_callbacks.library_defaults import filled_in
from hf_callbacks.provenance import FIELDS, Provenance, provenance_of
from metahp_tuning.precedence import Setting
from metamodel.space.batch import BatchLayout
from store.hyperparameters import Role, names_with_role
from store.names import canonical_names
from store.statuses import Source
from store.values import same_value

# What __post_init__ makes of an untouched default. Default arguments to compare with cannot be built: that resets the devices.
_NORMALISED: dict[str, tuple[Any, ...]] = {
    "output_dir": ("trainer_output",),
    "report_to": ([],),
    "debug": ([],),
    "activation_checkpointing": (False,),
    "gradient_checkpointing": (False,),
    "include_num_input_tokens_seen": ("no",),
    "disable_tqdm": (False,),
}

# Fields that are no hyperparameters: they say where a run takes place, and what it logs and saves.
_RUN_FIELD_PREFIXES = (
    *("hub_", "push_", "logging_", "log_", "save_", "eval_", "dataloader_", "ddp_", "fsdp", "deepspeed", "trackio_"),
    *("do_", "include_", "report_"),
)
_RUN_FIELDS = (
    *names_with_role(Role.RUN),
    *("output_dir", "run_name", "project", "data_seed", "local_rank", "debug", "disable_tqdm", "use_cpu"),
    *("resume_from_checkpoint", "restore_callback_states_from_checkpoint", "ignore_data_skip", "enable_jit_checkpoint"),
    *("skip_memory_metrics", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "prediction_loss_only"),
    *("per_device_eval_batch_size", "batch_eval_metrics", "full_determinism", "length_column_name", "remove_unused_columns"),
    *("accelerator_config", "parallelism_config", "label_names"),
    "warmup_ratio",  # until transformers 5.1 an alias of warmup_steps
)

WARM_UP = "warmup_steps"
"""The host's one field for warm-up: below 1 it is a share of all steps, which is what other runs can be compared by."""


@dataclass
class RecordedHParams:
    """What a run is made with: raw name -> value, who decided it, and what was asked for where that differs."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    requested: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, value: Any, source: Source, requested: Any = None) -> None:
        """Add or replace one value."""
        self.values[name] = value
        self.sources[name] = source
        self.requested.pop(name, None)
        if requested is not None:
            self.requested[name] = requested


def plain_value(value: Any) -> Any:
    """Return a field's value as plain data: an enum's value, a configuration's dictionary."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return type(value)(plain_value(item) for item in value)
    if hasattr(value, "to_dict") and not isinstance(value, type):
        with suppress(Exception):  # a user's own configuration may be anything
            return value.to_dict()
    return value


def argument_values(args: TrainingArguments) -> dict[str, Any]:
    """Return every field of the arguments as plain data; our own two fields left out."""
    return {item.name: plain_value(getattr(args, item.name)) for item in dataclasses.fields(args) if item.name not in FIELDS}


def tunable_fields(cls: type[TrainingArguments]) -> tuple[str, ...]:
    """Return the fields a space may name: those that shape training, not its logging, saving, loading or place."""
    names = (item.name for item in dataclasses.fields(cls) if item.init and item.name not in FIELDS)
    return tuple(name for name in names if name not in _RUN_FIELDS and not name.startswith(_RUN_FIELD_PREFIXES))


def is_default(args: TrainingArguments, name: str) -> bool:
    """Say whether a field holds what the class gives it by default, or what the host derives from defaults and other fields."""
    item = type(args).__dataclass_fields__[name]
    value = plain_value(getattr(args, name))
    make_config: Any = type(args.accelerator_config)
    if item.default is not dataclasses.MISSING and _equal(value, plain_value(item.default)):
        return True
    if item.default_factory is not dataclasses.MISSING:
        return _equal(value, plain_value(item.default_factory()))
    if any(_equal(value, other) for other in _NORMALISED.get(name, ())):
        return True
    derived: dict[str, Callable[[], bool]] = {
        "do_eval": lambda: plain_value(args.eval_strategy) != "no",
        "eval_steps": lambda: value == args.logging_steps,
        "dataloader_pin_memory": lambda: args.use_cpu,
        "greater_is_better": lambda: value == (not str(args.metric_for_best_model).endswith("loss")),
        "metric_for_best_model": lambda: value == "loss" and args.load_best_model_at_end,
        "activation_checkpointing": lambda: value == getattr(args, "gradient_checkpointing", None),
        "torch_compile_backend": lambda: value == "inductor" and args.torch_compile,
        "accelerator_config": lambda: bool(args.accelerator_config == make_config()),
    }
    if name in derived and derived[name]():
        return True
    made = filled_in(args, name)
    return made is not dataclasses.MISSING and _equal(value, plain_value(made))


def read_arguments(args: TrainingArguments) -> RecordedHParams:
    """Return every field as a hyperparameter, with who decided it.

    A field rewritten by a recommendation is ``metahp`` with the user's own value as requested, unless it was changed again; an explicit
    keyword is the user's even where it equals the default.
    """
    provenance = provenance_of(args)
    result = RecordedHParams()
    for name, value in argument_values(args).items():
        rewrite = provenance.rewrite_in_force(name, value)
        if rewrite is not None:
            result.put(name, value, rewrite.source, rewrite.requested)
        else:
            is_users = name in provenance.explicit or not is_default(args, name)
            result.put(name, value, Source.USER if is_users else Source.DEFAULT)
    return result


def read_settings(args: TrainingArguments, explicit: frozenset[str], *, is_complete: bool = False) -> dict[str, Setting]:
    """Return the tunable fields: canonical name -> the field's value and who chose it.

    Args:
        args: Training arguments, of any subclass.
        explicit: Fields that the user passed.
        is_complete: Whether the user passed no others.
    """
    names, values = tunable_fields(type(args)), argument_values(args)
    settings = {}
    for name, canonical in canonical_names(list(names)).items():
        is_users = name in explicit or not is_default(args, name)
        key = "warmup_ratio" if name == WARM_UP and is_ratio(values[name]) else canonical
        settings[key] = Setting(name, values[name], Source.USER if is_users else Source.DEFAULT, not (is_users or is_complete))
    return settings


def is_ratio(value: Any) -> bool:
    """Say whether a value of ``warmup_steps`` is a share of all steps."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def warm_up_ratio(args: TrainingArguments, max_steps: int = 0) -> float | None:
    """Return the share of the training that warms up, None where its steps are unknown; 0 for those of the arguments."""
    steps = max_steps or max(0, args.max_steps)
    if is_ratio(args.warmup_steps):
        return float(args.warmup_steps)
    return min(1.0, args.get_warmup_steps(steps) / steps) if steps > 0 else None


def rewritten(args: TrainingArguments, values: Mapping[str, Any]) -> TrainingArguments:
    """Return a copy of the arguments with other values; class and note are kept.

    The host's own checks run on the copy, so values that contradict each other are caught here and not in the Trainer.

    Args:
        args: Training arguments, of any subclass.
        values: Field -> new value.

    Raises:
        Exception: Whatever the host raises for values it refuses.
    """
    values = dict(values)
    if "metric_for_best_model" in values and "greater_is_better" not in values:
        values["greater_is_better"] = None  # the host derived the old one from the old metric and would keep it
    steady = _steady_values(args)
    try:
        return dataclasses.replace(args, **{**steady, **values})
    except Exception:
        if _is_replaceable(args, steady):
            raise
    # Some subclasses refuse their own finished fields (two that exclude each other, one derived from the other).
    _check_as_host(args, {**steady, **values})
    twin = copy.copy(args)
    for name, value in values.items():
        old = getattr(twin, name)
        setattr(twin, name, type(old)(value) if isinstance(old, Enum) else value)
    return twin


def _is_replaceable(args: TrainingArguments, steady: Mapping[str, Any]) -> bool:
    try:
        dataclasses.replace(args, **steady)
    except Exception:  # any refusal means the same: this class cannot be rebuilt from its own fields
        return False
    return True


def _check_as_host(args: TrainingArguments, values: Mapping[str, Any]) -> None:
    """Run the host's own checks on the fields it knows, for a class that cannot be rebuilt as a whole.

    Raises:
        Exception: Whatever the host raises for values that contradict each other.
    """
    names = {item.name for item in dataclasses.fields(TrainingArguments) if item.init}
    known = {name: getattr(args, name) for name in names if hasattr(args, name)}
    TrainingArguments(**{**known, **{name: value for name, value in values.items() if name in names}})


def _steady_values(args: TrainingArguments) -> dict[str, Any]:
    """Keep a rebuild from tearing down a live accelerator: the host resets it unless the configuration asks to reuse it.

    The host pops that entry from the configuration while building the first arguments, so a rebuild would have lost it.
    """
    config = getattr(args, "accelerator_config", None)
    if not is_initialized() or not dataclasses.is_dataclass(config):
        return {}
    config = copy.copy(config)
    config.use_configured_state = True  # type: ignore[union-attr]
    return {"accelerator_config": config}


def restored(args: TrainingArguments, provenance: Provenance) -> TrainingArguments:
    """Return the arguments as they were before a recommendation rewrote them."""
    now = argument_values(args)
    requested = {
        name: item.requested
        for name, item in provenance.rewrites.items()
        if name in now and provenance.rewrite_in_force(name, now[name]) is not None
    }
    return rewritten(args, requested) if requested else args


def precision_of(args: TrainingArguments) -> str:
    """Return how numbers are held in training, in the words Lightning has for it."""
    return "bf16-mixed" if args.bf16 else "16-mixed" if args.fp16 else "32-true"


def batch_layout(args: TrainingArguments) -> BatchLayout:
    """Return how the arguments put a global batch together; each GPU of a process that drives several counts as a process."""
    per_device, accumulation = max(1, args.per_device_train_batch_size), max(1, args.gradient_accumulation_steps)
    return BatchLayout(per_device, accumulation, max(1, global_batch_size(args) // (per_device * accumulation)))


def global_batch_size(args: TrainingArguments, per_process: int | None = None) -> int:
    """Return the samples behind one optimizer step: per process x accumulation x data-parallel processes.

    Args:
        args: The training arguments.
        per_process: Samples a process loads at once; None for that of the arguments. Differs under ``auto_find_batch_size``.
    """
    loaded = args.train_batch_size if per_process is None else per_process
    shards = 1
    for name in ("tp_size", "cp_size", "sp_size"):
        shards *= getattr(args.parallelism_config, name, None) or 1
    return int(loaded * args.gradient_accumulation_steps * max(1, args.world_size // shards))


def _equal(a: Any, b: Any) -> bool:
    # False equals 0 in Python, but a switch is no number.
    return isinstance(a, bool) == isinstance(b, bool) and same_value(a, b)
