"""How long a training is, in full passes over its training data."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerState, TrainingArguments

from hf_callbacks.arguments import batch_layout
from metahp_tuning.run_length import batches_in_pass, planned_passes


def trained_passes(state: TrainerState, *, is_counted: bool) -> float | None:
    """Return how many full passes were trained so far, None where unknown.

    Args:
        state: Where the Trainer is.
        is_counted: Whether its epochs are passes over the data, as ``counts_passes`` says.
    """
    if is_counted or state.epoch is None:
        return state.epoch
    n_complete = math.ceil(state.epoch) - 1  # of a stream only the passes after which another one began are known to be whole
    if n_complete < 1:
        return None
    steps_of_this = (state.epoch - n_complete) * state.max_steps
    return state.global_step * n_complete / (state.global_step - steps_of_this)


def counts_passes(loader: Any) -> bool:
    """Say whether the Trainer's epochs are passes over the data.

    Of a stream without a length it takes ``max_steps`` for the length of a pass, and 10 steps of a million for a whole epoch.
    """
    try:
        return loader is None or len(loader) > 0
    except Exception:  # a stream has no length, and a user's own __len__ may fail in any way
        return False


def planned_epochs(args: TrainingArguments, n_train: int | None) -> float | None:
    """Return how many full passes a training is going to make, None where unknown.

    Args:
        args: Its arguments; ``max_steps`` overrules the epochs.
        n_train: Training samples, None for a stream.
    """
    layout = batch_layout(args)
    steps = args.max_steps if args.max_steps > 0 else None
    epochs = float(args.num_train_epochs) if steps is None else None
    return planned_passes(epochs, steps, n_batches=batches_in_pass(n_train, layout), accumulation=layout.accumulation)
