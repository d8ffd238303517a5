"""Which fields something else decides, and which others switch off: canonical name -> the reason, in words."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from hf_callbacks.arguments import plain_value
from store.hyperparameters import ACCUMULATION, PER_DEVICE_BATCH_SIZE, REGISTRY

EVERY_FIELD = "*"
"""Stands for all names."""

_DEEPSPEED_NAMES: dict[str, tuple[str, ...]] = {
    "train_micro_batch_size_per_gpu": (PER_DEVICE_BATCH_SIZE,),
    "train_batch_size": (PER_DEVICE_BATCH_SIZE, ACCUMULATION),
    "gradient_accumulation_steps": (ACCUMULATION,),
    "gradient_clipping": ("max_grad_norm",),
    "optimizer.type": ("optimizer",),
    "optimizer.params.lr": ("learning_rate",),
    "optimizer.params.betas": ("adam_beta1", "adam_beta2"),
    "optimizer.params.eps": ("adam_epsilon",),
    "optimizer.params.weight_decay": ("weight_decay",),
    "scheduler.type": ("lr_scheduler",),
    "scheduler.params.warmup_max_lr": ("learning_rate",),
    "scheduler.params.warmup_num_steps": ("warmup_steps", "warmup_ratio"),
    "fp16.enabled": ("fp16",),
    "bf16.enabled": ("bf16",),
}
"""Entry of a DeepSpeed configuration -> what of ours it decides, as the host fills it in."""

_NO_WARM_UP = ("constant", "reduce_lr_on_plateau", "greedy")


def fixed_fields(args: TrainingArguments, *, is_built: bool = False) -> dict[str, str]:
    """Return what cannot be rewritten: canonical name, or ``*`` for every name, -> why.

    DeepSpeed's ``auto`` entries are filled in when arguments are built: new arguments fill them anew, but those of a Trainer that
    ``is_built`` would then disagree with them.
    """
    return {**_without_effect(args), **_fixed_by_deepspeed(args, is_built)}


def _without_effect(args: TrainingArguments) -> dict[str, str]:
    """Fields that other fields switch off: a value written there would be announced and never used."""
    found: dict[str, str] = {}
    if args.max_steps > 0:
        found["num_epochs"] = f"max_steps={args.max_steps} decides how long the training is"
    schedule = plain_value(args.lr_scheduler_type)
    if schedule in _NO_WARM_UP:
        found |= dict.fromkeys(("warmup_steps", "warmup_ratio"), f"the schedule {schedule!r} has no warm-up")
    optimizer = str(plain_value(args.optim))
    for row in REGISTRY:
        if row.used_by and not any(word in optimizer for word in row.used_by):
            found[row.name] = f"the optimizer {optimizer!r} does not use it"
    return found


def _fixed_by_deepspeed(args: TrainingArguments, is_built: bool) -> dict[str, str]:
    if not args.deepspeed:
        if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in {"1", "true", "yes", "on", "y", "t"}:
            return {EVERY_FIELD: "Accelerate's own DeepSpeed configuration decides it; pass deepspeed= to the arguments instead"}
        return {}
    config = _deepspeed_config(args.deepspeed)
    if config is None:
        return {EVERY_FIELD: "DeepSpeed's configuration decides it, and could not be read"}
    found: dict[str, str] = {}
    for path, names in _DEEPSPEED_NAMES.items():
        value = _entry(config, path)
        if value is None or (value == "auto" and not is_built):
            continue
        how = f"DeepSpeed's configuration fixes {path}={value}" if value != "auto" else f"DeepSpeed's {path} was filled from it already"
        found |= {name: found.get(name, how) for name in names}
    return found


def _deepspeed_config(given: Any) -> Mapping[str, Any] | None:
    if isinstance(given, Mapping):
        return given
    try:
        with open(given, encoding="utf-8") as file:
            loaded = json.load(file)
    except (OSError, TypeError, ValueError):
        return None
    return loaded if isinstance(loaded, Mapping) else None


def _entry(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
