"""What a ``transformers.Trainer`` trains: one description for ``autoconfig`` before the Trainer exists and the callback after.

Both must call these functions with what they have, and get the same identity: otherwise a run would never belong to the task its
recommendation was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments

from hf_callbacks.arguments import RecordedHParams
from hf_callbacks.loss_settings import loss_settings
from hf_callbacks.model_path import without_weights
from hf_callbacks.objective import EvaluationObjective
from hf_callbacks.trainer_kind import kind_of_training
from metahp_tuning.configured_values import base_model, config_values, default_config
from metahp_tuning.data_description import describe_dataset
from metahp_tuning.data_parts import data_sets, sample_count
from metahp_tuning.data_schema import model_schema
from metahp_tuning.model_description import adapter_settings, label_count, trainable_share
from metahp_tuning.objective_definition import objective_definition
from metahp_tuning.random_states import preserved_generators, preserved_rng
from metahp_tuning.task_description import describe_module
from metamodel.data.task import TaskDescription
from store.statuses import Source
from store.values import same_value

_N_SAMPLES = 8
"""Samples whose sequence length is looked at."""
_CONFIG_NOISE = frozenset({"transformers_version", "name_or_path", "torch_dtype"})


def describe_task(
    args: TrainingArguments,
    *,
    model: nn.Module | str | None,
    train_dataset: object,
    eval_dataset: object = None,
    task: str | TaskDescription | None = None,
    objective: EvaluationObjective,
    trainer: Trainer | None = None,
) -> TaskDescription:
    """Describe what is trained.

    Args:
        args: The training arguments, as the user passed them; their class tells what kind of training it is.
        model: The model, or the path of its weights; None if it does not exist yet.
        train_dataset: The training data, as the user passes them to the Trainer.
        eval_dataset: The validation data; describe, do not identify.
        task: Explicit name or description; its identity wins.
        objective: The objective found.
        trainer: The Trainer, None before there is one; tells more of the loss.

    Returns:
        The description; what could not be read is absent.
    """
    if isinstance(task, TaskDescription):
        if task.objective is not None or objective.name is None:
            return task
        return task.with_objective(objective.name, objective.direction)
    known = {**describe_dataset(train_dataset), "n_val": sample_count(eval_dataset)}
    features = _sequence_length(data_sets(train_dataset)[0]) if known.get("input_shape") == (-1,) else {}
    model = without_weights(model, args)
    if model is not None:
        known |= {**describe_module(base_model(model) or model), "n_classes": known.get("n_classes") or label_count(model)}
        features |= {"trainable_share": trainable_share(model)}
    known["features"] = features
    kind = kind_of_training(args)
    of_model = {} if model is None else model_schema(model)
    known["schema"] = {**of_model, **known.get("schema", {}), **({} if kind is None else {"training": kind})}
    if isinstance(train_dataset, Mapping):
        known["schema"]["sets"] = sorted(map(str, train_dataset))
    known["comparability"] = {**_loss_in_model(model, objective), **loss_settings(args, trainer, objective.name)}
    return replace(TaskDescription(**known), name=task, objective=objective.name, direction=objective.direction)


def _loss_in_model(model: nn.Module | None, objective: EvaluationObjective) -> dict[str, Any]:
    with suppress(Exception):  # a user's module may be anything
        return objective_definition(objective.name, module=model)
    return {}


def read_model_config(model: nn.Module | None, into: RecordedHParams) -> RecordedHParams:
    """Add the scalars of a model's configuration (layers, width, dropout) to the hyperparameters.

    A name that a training argument has as well is stored as ``config.<name>``.
    """
    for name, value, is_default in adapter_settings(model):
        into.put(name, value, Source.DEFAULT if is_default else Source.USER)
    config = getattr(model, "config", None)
    values = config_values(config)
    if not values:
        return into
    defaults = default_config(config)
    for name, value in values.items():
        if name.startswith("_") or name in _CONFIG_NOISE or not isinstance(value, bool | int | float | str):
            continue
        source = Source.DEFAULT if name in defaults and same_value(defaults[name], value) else Source.USER
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
