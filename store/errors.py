"""Every error and warning of the project, under one root each.

An error states four things: the rule, the value received, what is possible and what to do. Each class also inherits the fitting
builtin, so code that does not know us can still catch it.
"""

from __future__ import annotations

from typing import Any


class MetaHPError(Exception):
    """Root of every error this project raises."""

    def __str__(self) -> str:
        """Return the sentence itself; ``KeyError`` would otherwise put it in quotes."""
        return str(self.args[0]) if self.args else ""


class HistoryPathError(MetaHPError, OSError):
    """The path cannot hold a history: a directory, unreadable, or in a place that cannot be written."""


class NotAHistoryError(MetaHPError, ValueError):
    """The file exists but is no SQLite database, or a database of something else."""


class HistoryTooNewError(MetaHPError, RuntimeError):
    """The history was written by a newer version of this package."""


class HistoryClosedError(MetaHPError, RuntimeError):
    """The history was used after ``close()``."""


class StorageError(MetaHPError, OSError):
    """The history is fine, but reading or writing it failed just now: locked by another program, or the disk is full."""


class UnknownRunError(MetaHPError, KeyError):
    """No run, or more than one, has this id."""


class UnknownTaskError(MetaHPError, KeyError):
    """No task, or more than one, has this name or id."""


class UnknownRecommendationError(MetaHPError, KeyError):
    """No recommendation has this id."""


class ObjectiveError(MetaHPError, ValueError):
    """The objective or its direction is unknown, or was never logged."""


class SpaceError(MetaHPError, ValueError):
    """A search space is malformed: not a distribution, an empty list, low above high."""


class UnknownHyperparameterError(MetaHPError, KeyError):
    """A hyperparameter is named that the module, the arguments or the history do not have."""


class NotEnoughHistoryError(MetaHPError, ValueError):
    """The history holds too little for what was asked."""


class ModelFileError(MetaHPError, ValueError):
    """A stored meta-model is missing, damaged or written by another version."""


class ShadowedPackageError(MetaHPError, ImportError):
    """A file of the user's has the name of one of our packages and hides it."""


class MissingDependencyError(MetaHPError, ImportError):
    """An optional package is needed for what was asked."""


class WorkerDiedError(MetaHPError, RuntimeError):
    """A process died that had a part of the work: out of memory, a crash, a signal.

    Attributes:
        report: What was measured until then, None if nothing.
    """

    report: dict[str, Any] | None = None


class InvalidArgumentError(MetaHPError, ValueError):
    """An argument is outside what is allowed and none of the other errors fits."""


class MetaHPWarning(UserWarning):
    """Root of every warning this project issues."""


class StorageWarning(MetaHPWarning):
    """Something could not be written to the history and waits in the spool."""


class ObjectiveWarning(MetaHPWarning):
    """No objective could be found, or it was never logged: the run is kept, but nothing can be learned from it."""


class NotAppliedWarning(MetaHPWarning):
    """A recommended value was not found in force after the start of training."""
