"""Whether somebody else is choosing this run's hyperparameters: then a run is logged, and nothing is rewritten."""

from __future__ import annotations

import logging
import os
import sys
from types import FrameType

from lightning.pytorch import Trainer

_log = logging.getLogger(__name__)

_ENVIRONMENT = {"WANDB_SWEEP_ID": "a W&B sweep"}
"""Set in the process of a trial by the agent that starts it."""

_CALLBACKS = {"optuna": "an Optuna study", "optuna_integration": "an Optuna study", "ray.tune": "Ray Tune"}
"""Package of a callback that reports to a search -> the search."""


def running_sweep(trainer: Trainer | None) -> str | None:
    """Return who searches, e.g. ``an Optuna study``, or None where the user starts a run of their own.

    Args:
        trainer: Its callbacks may report to a search; None where there is none yet.
    """
    for name, who in _ENVIRONMENT.items():
        if os.environ.get(name):
            return who
    for callback in [] if trainer is None else trainer.callbacks:  # type: ignore[attr-defined]
        for package, who in _CALLBACKS.items():
            if any(f"{base.__module__}.".startswith(f"{package}.") for base in type(callback).__mro__):
                return who
    return "Ray Tune" if _is_ray_trial() else _sweep_in_stack()


def _sweep_in_stack() -> str | None:
    """Find the loop of a study among the callers; only looked for where its package has been loaded."""
    if "optuna.study" not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_run_trial" and str(frame.f_globals.get("__name__")).startswith("optuna.study"):
            return "an Optuna study"
        frame = frame.f_back
    return None


def _is_ray_trial() -> bool:
    """Ask Ray, where it is loaded already, whether this process runs a trial of Tune; its session has moved between releases."""
    tune = sys.modules.get("ray.tune")
    if tune is None:
        return False
    try:
        return bool(tune.get_context().get_trial_id())
    except Exception as error:  # another release, or no session: no trial as far as anybody can see
        _log.debug("Ray's context could not be read: %s", error)
        return False
