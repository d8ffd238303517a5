"""What a ``transformers.Trainer`` trains: one description for ``autoconfig`` before the Trainer exists and the callback after.

Both must call these functions with what they have, and get the same identity: otherwise a run would never belong to the task its
recommendation was made for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_callbacks.arguments import RecordedHParams
from hf_callbacks.objective import EvaluationObjective
from metahp_tuning.configured_values import default_config
from metahp_tuning.data_description import describe_dataset
from metahp_tuning.data_parts import data_sets, sample_count
from metahp_tuning.model_description import adapter_settings, label_count, trainable_share
from metahp_tuning.random_states import preserved_generators, preserved_rng
from metahp_tuning.task_description import describe_module
from metamodel.data.task import TaskDescription
from store.statuses import Source

_LABEL_COLUMNS = frozenset({"label", "label_ids"})
_N_SAMPLES = 8
"""Samples whose sequence length is looked at."""
_CONFIG_NOISE = frozenset({"transformers_version", "name_or_path", "torch_dtype"})


def describe_task(
    args: TrainingArguments,
    *,
    model: nn.Module | None,
    train_dataset: object,
    eval_dataset: object = None,
    task: str | TaskDescription | None = None,
    objective: EvaluationObjective,
) -> TaskDescription:
    """Describe what is trained.

    Args:
        args: The training arguments; by them columns the model does not take are dropped or not.
        model: The model, None if it does not exist yet.
        train_dataset: The training data, as given to the Trainer or as its loader holds them.
        eval_dataset: The validation data; describe, do not identify.
        task: Explicit name or description; its identity wins.
        objective: The objective found.

    Returns:
        The description; what could not be read is absent.
    """
    if isinstance(task, TaskDescription):
        if task.objective is not None or objective.name is None:
            return task
        return task.with_objective(objective.name, objective.direction)
    used = _used(args, train_dataset, model)
    known = {**describe_dataset(used), "n_val": sample_count(eval_dataset)}
    features = _sequence_length(data_sets(used)[0]) if known.get("input_shape") == (-1,) else {}
    if model is not None:
        known |= {**describe_module(model), "n_classes": known.get("n_classes") or label_count(model)}
        features |= {"trainable_share": trainable_share(model)}
    known["features"] = features
    return replace(TaskDescription(**known), name=task, objective=objective.name, direction=objective.direction)


def read_model_config(model: nn.Module | None, into: RecordedHParams) -> RecordedHParams:
    """Add the scalars of a model's configuration (layers, width, dropout) to the hyperparameters.

    A name that a training argument has as well is stored as ``config.<name>``.
    """
    for name, value, is_default in adapter_settings(model):
        into.put(name, value, Source.DEFAULT if is_default else Source.USER)
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return into
    defaults = default_config(config)
    for name, value in config.to_dict().items():
        if name.startswith("_") or name in _CONFIG_NOISE or not isinstance(value, bool | int | float | str):
            continue
        source = Source.DEFAULT if name in defaults and defaults[name] == value else Source.USER
        into.put(f"config.{name}" if name in into.values else name, value, source)
    return into


def _sequence_length(dataset: Any) -> dict[str, float]:
    """Return the longest of a few samples' token sequences, spread over a map-style data set; nothing where they cannot be read."""
    lengths = []
    try:
        n = len(dataset)
        with preserved_rng(), preserved_generators(dataset):
            for index in sorted({n * i // _N_SAMPLES for i in range(_N_SAMPLES)}):
                sample = dataset[index]
                lengths.append(len(sample["input_ids"] if isinstance(sample, Mapping) else sample[0]))
    except Exception:  # a user's data set may be anything
        return {}
    return {"sequence_length": float(max(lengths))} if lengths else {}


def _used(args: TrainingArguments, dataset: Any, model: nn.Module | None) -> Any:
    """Drop unused columns, in each data set of a dictionary."""
    if isinstance(dataset, Mapping) and data_sets(dataset)[0] is not dataset:
        return {name: _used_columns(args, part, model) for name, part in dataset.items()}
    return _used_columns(args, dataset, model)


def _used_columns(args: TrainingArguments, dataset: Any, model: nn.Module | None) -> Any:
    """Drop the columns the Trainer will drop, from data sets that have columns: what remains is what its loader shows later."""
    columns = getattr(dataset, "column_names", None)
    if model is None or not args.remove_unused_columns or not isinstance(columns, list) or not hasattr(dataset, "remove_columns"):
        return dataset
    inner: Any = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model  # type: ignore[operator]
    used = set(inspect.signature(inner.forward).parameters) | _LABEL_COLUMNS | set(args.label_names or ())
    unused = [name for name in columns if name not in used]
    with suppress(Exception):  # a user's data set may only look as if it could do this
        return dataset.remove_columns(unused) if unused else dataset
    return dataset
