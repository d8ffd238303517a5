"""A training that goes on from a checkpoint: it keeps the values it began with, and is never predicted anew.

The callback leaves a note in the Trainer's own ``trainer_state.json``: which run it is, which recommendation it follows and what that
rewrote. Whoever resumes from the checkpoint finds it there, also where the history is on another machine.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hf_callbacks.arguments import argument_values, global_batch_size, is_default
from hf_callbacks.provenance import Provenance, Rewrite, Target, plain_rewrites, provenance_of, read_rewrites
from metahp_tuning.batch_split import split_global
from metamodel.explanation import format_value
from store.statuses import Source
from store.values import same_value

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
NOTE = "resumed_from"
"""Attribute of the callback whose value travels in the Trainer's state."""
_BATCH = "per_device_train_batch_size"


@dataclass(frozen=True)
class StoredRun:
    """What a checkpoint says of the run that wrote it.

    Attributes:
        checkpoint: Its folder.
        run_id: The run, None where it was not recorded.
        recommendation_id: The recommendation it followed, None for none.
        rewrites: What that rewrote.
        global_batch_size: Samples of one optimizer step.
        world_size: Processes it ran on.
    """

    checkpoint: str
    run_id: str | None = None
    recommendation_id: str | None = None
    rewrites: Mapping[str, Rewrite] = field(default_factory=dict)
    global_batch_size: int | None = None
    world_size: int | None = None


@dataclass(frozen=True)
class Resumption:
    """What is to be written so that a resumed run goes on as it began.

    Attributes:
        values: Field of the arguments -> value.
        model_values: Name in the model's configuration -> value.
        provenance: The note the arguments then carry.
        message: What to say, empty where there is nothing to say.
    """

    values: Mapping[str, Any]
    model_values: Mapping[str, Any]
    provenance: Provenance
    message: str = ""


def note_of_run(args: TrainingArguments, run_id: str | None) -> dict[str, Any]:
    """Return what a checkpoint shall say of the run that writes it, as plain JSON; values that are none stay out."""
    provenance = provenance_of(args)
    rewrites = {name: item for name, item in plain_rewrites(provenance.rewrites).items() if _is_json(item)}
    return {
        "run_id": run_id,
        "recommendation_id": provenance.recommendation_id,
        "rewrites": rewrites,
        "global_batch_size": global_batch_size(args),
        "world_size": args.world_size,
    }


def checkpoint_of(resume: Any, output_dir: str | None) -> str | None:
    """Return the folder that ``resume_from_checkpoint`` means, None for none."""
    if resume in (None, False, "", "False", "false"):
        return None
    if resume is True or resume in ("True", "true"):
        return get_last_checkpoint(output_dir) if output_dir and os.path.isdir(output_dir) else None  # type: ignore[no-untyped-call]
    return str(os.fspath(resume))


def read_stored_run(checkpoint: str) -> StoredRun | None:
    """Return what a checkpoint says of its run, None where it says nothing (it was written without our callback)."""
    try:
        with open(os.path.join(checkpoint, STATE_FILE), encoding="utf-8") as file:
            states = json.load(file).get("stateful_callbacks") or {}
    except (OSError, ValueError, AttributeError) as error:
        logger.debug("%s could not be read: %s", checkpoint, error)
        return None
    return stored_run_of(states, checkpoint)


def stored_run_of(states: Mapping[str, Any], checkpoint: str = "") -> StoredRun | None:
    """Return what the states of a Trainer's callbacks say of the run, None where they say nothing."""
    for entry in states.values():
        for state in entry if isinstance(entry, list) else [entry]:
            note = (state.get("attributes") or {}).get(NOTE) if isinstance(state, Mapping) else None
            if isinstance(note, Mapping) and (note.get("run_id") or note.get("rewrites")):
                return StoredRun(
                    checkpoint,
                    note.get("run_id"),
                    note.get("recommendation_id"),
                    read_rewrites(note.get("rewrites", {})),
                    note.get("global_batch_size"),
                    note.get("world_size"),
                )
    return None


def find_resumption(args: TrainingArguments, resume: Any) -> Resumption | None:
    """Plan a resumption from what ``resume_from_checkpoint`` means; None where it means no checkpoint.

    Args:
        args: The arguments as they are now.
        resume: A folder, or True for the last one of the output directory.
    """
    checkpoint = checkpoint_of(resume, args.output_dir)
    return None if checkpoint is None else plan_resumption(args, read_stored_run(checkpoint), checkpoint)


def plan_resumption(args: TrainingArguments, stored: StoredRun | None, checkpoint: str) -> Resumption:
    """Plan how arguments go back to what the checkpoint's run was made with.

    What that run's recommendation wrote is written again. What another recommendation has written since is taken back. A value the
    user passes now and that differs is overruled, and named.

    Args:
        args: The arguments as they are now.
        stored: What the checkpoint says, None where it says nothing.
        checkpoint: Its folder.
    """
    now, provenance = argument_values(args), provenance_of(args)
    stored = stored or StoredRun(checkpoint)
    wanted = {name: _adjusted(name, rewrite.applied, stored, args) for name, rewrite in stored.rewrites.items()}
    values = {name: value for name, value in wanted.items() if name in now and not same_value(now[name], value)}
    conflicts = {
        name: now[name]
        for name in values
        if provenance.rewrite_in_force(name, now[name]) is None
        and not same_value(now[name], stored.rewrites[name].requested)
        and (name in provenance.explicit or not is_default(args, name))
    }
    taken_back = {
        name: rewrite.requested
        for name, rewrite in provenance.rewrites.items()
        if name not in wanted and provenance.rewrite_in_force(name, now.get(name)) is not None
    }
    # The source stays "resume" from now on: neither the user nor a new recommendation chose these values for this attempt.
    rewrites = {name: Rewrite(item.requested, wanted[name], Source.RESUME) for name, item in stored.rewrites.items()}
    model_values = {name: value for name, value in wanted.items() if name not in now}
    model_values |= {name: rewrite.requested for name, rewrite in provenance.rewrites.items() if name not in now and name not in wanted}
    note = Provenance(stored.recommendation_id, provenance.explicit, rewrites, provenance.target or Target())
    message = _message(stored, {**values, **taken_back}, now, conflicts)
    return Resumption({**values, **taken_back}, model_values, note, message)


def _adjusted(name: str, value: Any, stored: StoredRun, args: TrainingArguments) -> Any:
    """Keep the global batch of the run where it goes on with another number of processes."""
    if name != _BATCH or stored.global_batch_size is None or stored.world_size in (None, args.world_size):
        return value
    return split_global(stored.global_batch_size, args.world_size * max(1, args.n_gpu), [args.gradient_accumulation_steps]).per_device


def _message(stored: StoredRun, values: Mapping[str, Any], now: Mapping[str, Any], conflicts: Mapping[str, Any]) -> str:
    if not values and not stored.rewrites:
        return ""
    changes = [f"{name} {format_value(now[name])} -> {format_value(value)}" for name, value in values.items() if name in now]
    what = ", ".join(changes) if changes else "every value is as it was"
    by = f"recommendation {stored.recommendation_id}" if stored.recommendation_id else "no recommendation"
    lines = [f"metahp: {what}; this run goes on from {os.path.basename(stored.checkpoint)}, which follows {by}; nothing was predicted anew"]
    if conflicts:
        named = ", ".join(f"{name}={format_value(value)}" for name, value in conflicts.items())
        lines.append(f"  {named} was passed, but a resumed run keeps its values; start a new run to change them")
    return "\n".join(lines)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
