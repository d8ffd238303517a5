"""What a checkpoint says of the run that wrote it, and what our callbacks leave in one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_metahp.trainer_internals import Resume
from metahp_tuning.resumption import Rewrite, StoredRun

_log = logging.getLogger(__name__)


def stored_run_in(path: str, checkpoint: Mapping[str, Any]) -> StoredRun:
    """Return what a loaded checkpoint says of its run."""
    state = callback_state(checkpoint)
    requested: Mapping[str, Any] = state.get("requested") or {}
    rewrites = {raw: Rewrite(requested.get(raw), value) for raw, value in (state.get("values") or {}).items()}
    hparams = dict(checkpoint.get("hyper_parameters") or {})
    return StoredRun(
        path,
        state.get("run_id"),
        state.get("recommendation_id"),
        rewrites,
        hparams,
        global_batch_size=state.get("global_batch_size"),
        world_size=state.get("world_size"),
    )


def callback_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a callback of ours saved in a checkpoint, empty if none did."""
    states = checkpoint.get("callbacks") or {}
    for key, state in states.items():
        if str(key).startswith("MetaHP") and isinstance(state, Mapping) and state.get("run_id"):
            return dict(state)
    return {}


def read_checkpoint(resume: Resume) -> StoredRun:
    """Read what is needed of a checkpoint before the Trainer loads it; weights are mapped, not read.

    Objects other than plain values are loaded only where the running call loads them itself.
    """
    path = Path(str(resume.path))
    if not path.is_file():  # a remote or sharded checkpoint: the Trainer hands it to us once it has loaded it
        return StoredRun(str(resume.path), is_complete=False)
    for weights_only in (True, False) if resume.weights_only is False else (True,):
        try:
            return stored_run_in(str(path), torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only))
        except Exception as error:  # whatever is wrong with it, the Trainer will say so when it loads it
            _log.debug("the checkpoint %s could not be read before the start: %s", path, error)
    return StoredRun(str(path), is_complete=False)
