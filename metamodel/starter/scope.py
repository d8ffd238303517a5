"""What the starter history speaks about, without what it says: asked at the start of every run, so it imports next to nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from metamodel.data.task import TaskDescription
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
"""Where a network is built later and its size is not known, it is taken for small if its data set is no larger than this."""
MIN_BESIDE_STARTER = 2
"""Other tasks of the user's own from which a meta-model is fitted to them and stands beside it. What was best on one is too rarely best on
the next."""
TAKE_OVER = 8
"""Other tasks of the user's own from which it is silent: somewhere from here on they alone are as good
(`studies.starter.proof --take-over`)."""

# Compiled when they are first used: most runs ask for none of them.
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


def is_wanted(n_others: int) -> bool:
    """Say whether it is asked at all, where so many other tasks of the user's own speak."""
    return n_others < TAKE_OVER and not is_off()


def why_silent(description: TaskDescription, current: Mapping[str, Any]) -> str:
    """Say why the starter history knows nothing about a task, as half a sentence; empty where it does."""
    family = family_of(description, current)
    if family is None:
        named = description.model_family or current.get("model_family") or "unknown"
        return f"it knows networks of the families mlp, cnn, rnn and transformer, and this one's is {named}"
    tuned = sorted(name for name, value in current.items() if re.search(_FINE_TUNING, name.lower()) and value not in (None, False, "", 0))
    if description.is_pretrained or tuned:
        return "it knows networks trained from scratch, and this one starts from trained weights" + (
            "" if description.is_pretrained else f" (as {tuned[0]!r} says)"
        )
    n_parameters, width = description.n_parameters or 0, description.width or _number(current.get("hidden_size"))
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


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf else 0


def family_of(description: TaskDescription, current: Mapping[str, Any]) -> str | None:
    """Return the family of a task's network, None where it is none of the starter's.

    A network without layers yet (built in Lightning's ``configure_model``) is known by its name.
    """
    for named in (description.model_family, current.get("model_family")):
        if named in FAMILIES:
            return str(named)
    if description.n_parameters or not description.model_class:
        return None
    spoken = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", description.model_class).lower()
    return next((family for family, words in _FAMILY_WORDS if re.search(words, spoken)), None)


def planned_steps(description: TaskDescription, current: Mapping[str, Any]) -> int | None:
    """Return how many steps a run is going to take, None where that is not known."""
    from metamodel.space.dimensions import is_number

    told, epochs, size = (
        float(value) if is_number(value) else 0.0 for value in (current.get(name, 0) for name in ("max_steps", "num_epochs", "batch_size"))
    )
    if told > 0:
        return int(told)
    if epochs <= 0 or size <= 0 or not description.n_train:
        return None
    return math.ceil(epochs * math.ceil(description.n_train / size))


def optimizer_of(name: object) -> str | None:
    """Return ``SGD``, ``Adam`` or ``AdamW`` for any usual spelling of it, None for any other."""
    spoken = str(name or "").strip().lower().replace("-", "_")
    return next((known for known, words in _OPTIMIZERS if re.search(words, spoken)), None)


def silent_about(description: TaskDescription, current: Mapping[str, Any]) -> str:
    """Say that and why the starter history says nothing of a task; empty where it might."""
    silent = why_silent(description, current)
    return f"the starter history says nothing: {silent}" if silent else ""
