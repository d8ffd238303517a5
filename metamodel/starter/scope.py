"""For which tasks the starter history applies, without loading it: asked at the start of every run, so it imports next to nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard

from metamodel.data.task import TaskDescription
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.switches import STARTER

LARGEST = {
    "mlp": (559_862, 512),
    "cnn": (5_441, 24),
    "rnn": (23_073, 32),
    "transformer": (39_903, 32),
}
"""Parameters and width of the largest network of each family that it was trained on: wider networks need smaller learning rates. Derived
from ``data/runs.parquet``; a test computes them again."""
MAX_TRAIN_OF_UNBUILT = 100_000
"""A network that is built later, so that its size is not known, counts as small if its data set is no larger than this."""
MIN_TASKS_WITH_STARTER = 2
"""Other tasks of the user from which a meta-model is fitted to them and mixed with the starter. What was best on one is too rarely best on
the next."""
MAX_OTHER_TASKS_FOR_STARTER = 7
"""Other tasks of the user up to which the starter is used: somewhere from here on they are as good without it
(`studies.starter.proof --take-over`)."""

_OPTIMIZERS = (
    ("AdamW", r"(^|[._])adamw(_|$)"),
    ("Adam", r"(^|[._])adam(_|$)"),
    ("SGD", r"(^|[._])sgd(_|$)"),
)
_FAMILY_WORDS = (
    ("transformer", r"transformer|bert|gpt|vit|attention"),
    ("rnn", r"rnn|lstm|gru|recurrent"),
    ("cnn", r"cnn|conv|resnet|lenet|unet|vgg"),
    ("mlp", r"mlp|feed_?forward|perceptron|dense|fully_?connected"),
)
FAMILIES = tuple(family for family, _ in _FAMILY_WORDS)
_FINE_TUNING = r"(^|_)(pretrained|name_or_path|backbone|fine_?tun\w*|freeze\w*|unfreeze\w*|lora\w*)(_|$)"


def is_off() -> bool:
    """Say whether ``METAHP_STARTER=0`` forbids its use."""
    return not STARTER.is_on


def starter_applies(n_others: int) -> bool:
    """Say whether it is used at all, with so many other tasks of the user to learn from."""
    return n_others <= MAX_OTHER_TASKS_FOR_STARTER and not is_off()


def why_out_of_scope(description: TaskDescription, current: Mapping[str, Any]) -> str:
    """Say why a task is out of the starter history's scope, as half a sentence; empty where it is in scope."""
    family = family_of(description, current)
    if family is None:
        named = description.model_family or current.get("model_family") or "unknown"
        return f"it knows networks of the families mlp, cnn, rnn and transformer, and this one's is {named}"
    tuned = sorted(name for name, value in current.items() if re.search(_FINE_TUNING, name.lower()) and value not in (None, False, "", 0))
    if description.is_pretrained or tuned:
        return "it knows networks trained from scratch, and this one starts from trained weights" + (
            "" if description.is_pretrained else f" (as {tuned[0]!r} says)"
        )
    n_parameters, width = description.n_parameters or 0, description.width or _count(current.get("hidden_size"))
    most, widest = LARGEST[family]
    if n_parameters > most or width > widest:
        sizes = [f"{n_parameters:,} parameters"] * (n_parameters > 0) + [f"a width of {width:,}"] * (width > 0)
        return f"its largest {family} has {most:,} parameters and a width of {widest:,}, and this one has {' and '.join(sizes)}"
    is_named = description.model_family in FAMILIES or current.get("model_family") in FAMILIES
    if not is_named and not (description.n_train and description.n_train <= MAX_TRAIN_OF_UNBUILT):
        return "the network is not built yet, so its size is not known"
    if current.get("optimizer") is not None and optimizer_of(current["optimizer"]) is None:
        return f"it knows SGD, Adam and AdamW, and this optimizer is {current['optimizer']}"
    return ""


def out_of_scope_message(description: TaskDescription, current: Mapping[str, Any]) -> str:
    """Say that and why the starter history does not apply to a task; empty where it may."""
    reason = why_out_of_scope(description, current)
    return f"the starter history does not apply: {reason}" if reason else ""


def family_of(description: TaskDescription, current: Mapping[str, Any]) -> str | None:
    """Return the family of a task's network, None where it is none of the starter's.

    A network without layers yet (built in Lightning's ``configure_model``) is known by its name.
    """
    for named in (description.model_family, current.get("model_family")):
        if named in FAMILIES:
            return str(named)
    if description.n_parameters or not description.model_class:
        return None
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", description.model_class).lower()
    return next((family for family, pattern in _FAMILY_WORDS if re.search(pattern, words)), None)


def planned_steps(description: TaskDescription, current: Mapping[str, Any]) -> int | None:
    """Return how many steps a run is going to take, None where that is not known."""
    steps = _count(current.get("max_steps"))
    if steps:
        return steps
    epochs, size = current.get("num_epochs"), _count(current.get(GLOBAL_BATCH_SIZE, current.get(PER_DEVICE_BATCH_SIZE)))
    if not _is_positive(epochs) or not size or not description.n_train:
        return None
    return math.ceil(float(epochs) * math.ceil(description.n_train / size))


def optimizer_of(name: object) -> str | None:
    """Return ``SGD``, ``Adam`` or ``AdamW`` for any usual spelling of it, None for any other."""
    words = str(name or "").strip().lower().replace("-", "_")
    return next((known for known, pattern in _OPTIMIZERS if re.search(pattern, words)), None)


def _is_positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _count(value: Any) -> int:
    """Return a positive number as a whole one, 0 for anything else."""
    return int(value) if _is_positive(value) else 0
