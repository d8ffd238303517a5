"""What is trained: the description of a task, and what of it decides which runs belong together.

Identity is the explicit name; else a fingerprint of the data, the model class and the objective with its direction. Nothing that
can be tuned, and nothing that follows from what can be tuned, enters it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from store.names import Direction


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """What a run trains, as far as it is known before training.

    Attributes:
        name: Explicit name; where given it alone is the identity.
        dataset_class: Class name of the training data set, unwrapped from subsets.
        n_train: Number of training samples, None for a stream.
        n_val: Number of validation samples; describes, does not identify.
        input_shape: Shape of one sample's input, without the batch dimension; free dimensions (a sequence length) are -1.
        input_dtype: Its dtype, e.g. ``float32``.
        target_shape: Shape of one sample's target.
        target_dtype: Its dtype.
        n_classes: Number of classes, None for regression.
        data_hparams: Hyperparameters of the data that cannot be tuned (a data set's name, a fold), with their values.
        model_class: Class name of the model.
        model_family: ``mlp cnn rnn transformer other``; describes, does not identify.
        is_pretrained: Whether training starts from pre-trained weights; describes, does not identify.
        n_parameters: Number of parameters; follows from tunable values, so it describes only.
        width: Width of the layers that make its family (units, channels, state); likewise.
        objective: Metric that is optimised.
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
    data_hparams: Mapping[str, Any] = field(default_factory=dict)
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
            "dataset_class": self.dataset_class,
            "n_train": self.n_train,
            "input_shape": None if self.input_shape is None else list(self.input_shape),
            "input_dtype": self.input_dtype,
            "target_shape": None if self.target_shape is None else list(self.target_shape),
            "target_dtype": self.target_dtype,
            "n_classes": self.n_classes,
            "data_hparams": {key: self.data_hparams[key] for key in sorted(self.data_hparams)},
            "model_class": self.model_class,
            "objective": self.objective,
            "direction": None if self.direction is None else str(Direction(self.direction)),
        }

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
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key in cls.__dataclass_fields__
        }
        return cls(**known)

    def with_objective(self, objective: str | None, direction: str | None) -> TaskDescription:
        """Return the same task with another objective."""
        return replace(self, objective=objective, direction=direction)

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
