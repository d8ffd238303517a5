"""The note in a checkpoint: which run wrote it, which recommendation that follows, and what was rewritten.

The callback leaves it in the Trainer's own ``trainer_state.json``, so that whoever resumes finds it there, also where the history is on
another machine.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hf_callbacks.arguments import batch_layout
from hf_callbacks.provenance import provenance_of
from metahp_tuning.precedence import Change
from metahp_tuning.resumption import Rewrite, StoredRun
from store.statuses import Source
from store.values import same_value

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
NOTE = "resumed_from"
"""Attribute of the callback whose value travels in the Trainer's state."""


def note_of_run(args: TrainingArguments, run_id: str | None) -> dict[str, Any]:
    """Return what a checkpoint shall hold of the run that writes it, as plain JSON; values that are none stay out."""
    provenance, layout = provenance_of(args), batch_layout(args)
    return {
        "run_id": run_id,
        "recommendation_id": provenance.recommendation_id,
        "rewrites": {name: plain for name, item in provenance.rewrites.items() if _is_json(plain := item.to_dict())},
        "global_batch_size": layout.global_size,
        "world_size": layout.world_size,
    }


def stored_run_at(resume: Any, output_dir: str | None) -> StoredRun | None:
    """Return the run behind a ``resume_from_checkpoint``; one without an id where the checkpoint was written without our callback.

    Args:
        resume: A folder, or True for the last checkpoint of the output directory.
        output_dir: That directory.

    Returns:
        The run, None where no checkpoint is meant.
    """
    if resume in (None, False, "", "False", "false"):
        return None
    checkpoint = str(os.fspath(resume)) if resume not in (True, "True", "true") else None
    if checkpoint is None and output_dir and os.path.isdir(output_dir):
        checkpoint = get_last_checkpoint(output_dir)  # type: ignore[no-untyped-call]
    if checkpoint is None:
        return None
    try:
        with open(os.path.join(checkpoint, STATE_FILE), encoding="utf-8") as file:
            states = json.load(file).get("stateful_callbacks") or {}
        return stored_run_of(states, checkpoint) or StoredRun(checkpoint)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:  # damaged, or of a release that writes it otherwise
        logger.debug("%s could not be read: %s", checkpoint, error)
        return StoredRun(checkpoint)


def stored_run_of(states: Mapping[str, Any], checkpoint: str = "") -> StoredRun | None:
    """Return the run that the states of a Trainer's callbacks name, None where they name none."""
    for entry in states.values():
        for state in entry if isinstance(entry, list) else [entry]:
            note = (state.get("attributes") or {}).get(NOTE) if isinstance(state, Mapping) else None
            if isinstance(note, Mapping) and (note.get("run_id") or note.get("rewrites")):
                return StoredRun(
                    checkpoint,
                    note.get("run_id"),
                    note.get("recommendation_id"),
                    {name: Rewrite.from_dict(item) for name, item in note.get("rewrites", {}).items()},
                    global_batch_size=note.get("global_batch_size"),
                    world_size=note.get("world_size"),
                )
    return None


def resumed_rewrites(stored: StoredRun, changes: Iterable[Change], now: Mapping[str, Any]) -> dict[str, Rewrite]:
    """Return what of a run's rewrites is in force again, all with the source ``resume``: nobody chose the values for this attempt.

    Args:
        stored: What the checkpoint holds.
        changes: What was written back.
        now: Field of the arguments -> value; a name that is none is of the model.
    """
    written = {change.raw_name: change.new for change in changes}
    found = {}
    for name, item in stored.rewrites.items():
        applied = written.get(name, item.applied)
        if name in written or name not in now or same_value(now[name], applied):
            found[name] = Rewrite(item.requested, applied, Source.RESUME)
    return found


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
