"""What is trained: the description of a task, and what of it decides which runs belong together.

Identity is the explicit name; else model class, objective and the signature of the data: the names they give themselves, their schema and
a sketch of their content. Nothing that can be tuned or follows from it enters, and no size.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from store.names import Direction, base_metric_name, is_loss_name

_OF_EVALUATION = frozenset({"validation", "evaluation_set"})
"""Keys of ``comparability`` that hold for every metric; the others are about a loss."""


_DATA_SET_WORDS = frozenset(str.split("builder environment dataset datasets data corpus benchmark root file files csv parquet"))
"""Words of names that stand for a whole data set, not for a part or a column of it."""


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """What a run trains, as far as it is known before training.

    Attributes:
        name: Explicit name; where given it is the whole identity.
        dataset_class: Class name of the training data set, unwrapped from subsets.
        n_train: Number of training samples, None for a stream; describes, does not identify.
        n_val: Number of validation samples; likewise.
        input_shape: Shape of one sample's input, without the batch dimension; free dimensions (a length) are -1.
        input_dtype: Its dtype, e.g. ``float32``; its kind (``float``) identifies.
        target_shape: Shape of one sample's target, likewise.
        target_dtype: Its dtype.
        n_classes: Number of classes, None for regression.
        data_names: Names that the data give themselves, and hyperparameters that name data, an environment, a target or a file.
        schema: Column names and types, class labels, classes of Trainer and loss.
        sketch: The smallest hashes of the data's rows, hexadecimal and sorted; None where the content could not be read twice alike.
        correlations: Of a few numbers of each row with each other; describes, does not identify.
        fold: Hyperparameters that name a fold or part of the same data.
        lengths: Sizes of the free dimensions that are as long in every sample; tasks that differ in them are siblings.
        pieces: Of text as tokens in blocks of one length, the smallest hashes of short pieces; describes, does not identify.
        comparability: What changes the meaning of the objective, and is not the default; describes, does not identify.
        model_class: Class name of the model.
        model_family: ``mlp cnn rnn transformer other``; describes, does not identify.
        is_pretrained: Whether training starts from pre-trained weights; describes, does not identify.
        n_parameters: Number of parameters; follows from tunable values, so it describes only.
        width: Width of the layers that make its family (units, channels, state); likewise.
        objective: Metric that is optimised; its base name identifies.
        direction: ``min`` or ``max``.
        features: Further numbers about the task, e.g. class imbalance; describe only.
    """

    name: str | None = None
    dataset_class: str | None = None
    n_train: int | None = None
    n_val: int | None = None
    input_shape: tuple[int, ...] | None = None
    input_dtype: str | None = None
    target_shape: tuple[int, ...] | None = None
    target_dtype: str | None = None
    n_classes: int | None = None
    data_names: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    sketch: tuple[str, ...] | None = None
    correlations: tuple[float, ...] | None = None
    fold: Mapping[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] | None = None
    pieces: tuple[str, ...] | None = None
    comparability: Mapping[str, Any] = field(default_factory=dict)
    model_class: str | None = None
    model_family: str | None = None
    is_pretrained: bool | None = None
    n_parameters: int | None = None
    width: int | None = None
    objective: str | None = None
    direction: str | None = None
    features: Mapping[str, float] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return what two runs must share to be of one task, JSON-compatible."""
        if self.name is not None:
            return {"name": self.name}
        return {
            "data_names": _sorted(self.data_names),
            "dataset_class": self.dataset_class,
            "schema": _sorted(self.schema),
            "input_shape": None if self.input_shape is None else list(self.input_shape),
            "input_kind": kind_of(self.input_dtype),
            "target_shape": None if self.target_shape is None else list(self.target_shape),
            "target_kind": kind_of(self.target_dtype),
            "n_classes": self.n_classes,
            "content": _digest(None if self.is_named_data else self.sketch, self.lengths),
            "fold": _sorted(self.fold),
            "model_class": self.model_class,
            "objective": None if self.objective is None else base_metric_name(self.objective),
            "direction": None if self.direction is None else str(Direction(self.direction)),
        }

    @property
    def is_named_data(self) -> bool:
        """Whether the data name themselves, so that no content has to tell them apart: another split of them is the same task."""
        return any(not _DATA_SET_WORDS.isdisjoint(re.split(r"[._]", name.lower())) for name in self.data_names)

    @property
    def is_identified(self) -> bool:
        """Whether enough is known to tell this task from others: a name, or data and a model."""
        return self.name is not None or (self.dataset_class is not None and self.model_class is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return every known field, JSON-compatible."""
        known = {key: value for key, value in asdict(self).items() if value is not None and value != {}}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskDescription:
        """Rebuild a description; keys it does not know (written by a newer version) are left out."""
        if "data_hparams" in values and "data_names" not in values:  # as earlier versions called it
            values = {**values, "data_names": values["data_hparams"]}
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key in cls.__dataclass_fields__
        }
        return cls(**known)

    def with_objective(self, objective: str | None, direction: str | None) -> TaskDescription:
        """Return the same task with another objective."""
        defined = self.comparability
        if objective is not None and not is_loss_name(objective):  # no loss is part of an accuracy
            defined = {key: value for key, value in defined.items() if key in _OF_EVALUATION}
        return replace(self, objective=objective, direction=direction, comparability=defined)

    def numeric_features(self) -> dict[str, float]:
        """Return the numbers a meta-model may learn from; sizes in log10, absent where unknown."""
        values: dict[str, float] = {}
        for key in ("n_train", "n_classes"):
            number = getattr(self, key)
            if number is not None and number > 0:
                values[f"log10_{key}"] = math.log10(number)
        if self.input_shape is not None and all(size > 0 for size in self.input_shape):
            values["log10_n_inputs"] = math.log10(max(1, math.prod(self.input_shape)))
        if self.is_pretrained is not None:
            values["is_pretrained"] = float(self.is_pretrained)
        values.update({key: float(value) for key, value in self.features.items()})
        return values


def kind_of(dtype: str | None) -> str | None:
    """Return what a dtype holds, without its precision: ``float``, ``int``, ``bool``, ``str``."""
    if dtype is None:
        return None
    return next((kind for kind in ("float", "int", "bool", "complex", "str") if kind in dtype), dtype)


def _digest(sketch: tuple[str, ...] | None, lengths: tuple[int, ...] | None) -> str | None:
    """Samples of another length are other samples, whether they were cut in advance or when they are read."""
    parts = [*(sketch or ()), *(str(length) for length in lengths or ())]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12] if parts else None


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in sorted(values)}
