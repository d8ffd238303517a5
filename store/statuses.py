"""How runs stand, and who decided a value."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """How a run stands. ``stale`` is computed when reading (no heartbeat for a while) and never stored."""

    RUNNING = "running"
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DIVERGED = "diverged"
    OOM = "oom"
    STOPPED = "stopped"
    STALE = "stale"


FINISHED = frozenset({RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DIVERGED, RunStatus.OOM})
"""Statuses of runs whose outcome is evidence for their hyperparameters."""


class Source(StrEnum):
    """Who decided a hyperparameter's value."""

    USER = "user"
    DEFAULT = "default"
    METAHP = "metahp"
    RESUME = "resume"
    CONSTRAINT = "constraint"
