"""A run that resumes another: it keeps the values it began with, and nothing is predicted for it.

One rule for every host. A run that stopped (interrupted, failed, out of memory, or its process is gone) goes on in its own row, as its next
attempt. A run that had ended and is trained further is another run: it gets a row of its own, which names the earlier one as its parent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metahp_tuning.batch_split import split_global
from metahp_tuning.messages import describe_changes
from metahp_tuning.precedence import Change, Setting
from metahp_tuning.recommendation_query import typed
from metamodel.explanation import format_value
from metamodel.space.batch import BatchLayout
from store.errors import MetaHPError
from store.hyperparameters import (
    ACCUMULATION,
    PER_DEVICE_BATCH_SIZE,
    Role,
    names_in_optimizer_state,
    names_that_keep_shapes,
    names_with_role,
)
from store.names import canonical_name
from store.statuses import RunStatus, Source
from store.switches import pinned_recommendation
from store.values import same_value

if TYPE_CHECKING:
    from store import History, RunRecorder

_log = logging.getLogger(__name__)

CONTINUED_STATUSES = frozenset({RunStatus.INTERRUPTED, RunStatus.FAILED, RunStatus.STALE, RunStatus.OOM})
"""How a run must have ended for its row to go on."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rewritten value: what was asked for, ours, and who decided it."""

    requested: Any
    applied: Any
    source: Source = Source.METAHP

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as far as the values are."""
        return {"requested": self.requested, "applied": self.applied, "source": str(self.source)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rewrite:
        """Rebuild what ``to_dict`` gave."""
        return cls(values["requested"], values["applied"], Source(values["source"]))


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a checkpoint says of the run that wrote it.

    Attributes:
        checkpoint: Its path.
        run_id: The run, None where it was not recorded.
        recommendation_id: The recommendation it followed, None for none.
        rewrites: Raw name -> what that rewrote.
        hparams: Hyperparameters of the run by raw name, where the checkpoint holds them.
        global_batch_size: Samples of one optimizer step, None where unknown.
        world_size: Processes it ran on, None where unknown.
        is_complete: Whether the checkpoint could be read before the layers exist; otherwise only what changes no shape can be written.
    """

    checkpoint: str
    run_id: str | None = None
    recommendation_id: str | None = None
    rewrites: Mapping[str, Rewrite] = field(default_factory=dict)
    hparams: Mapping[str, Any] = field(default_factory=dict)
    global_batch_size: int | None = None
    world_size: int | None = None
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class ResumptionPlan:
    """What has to be written so that a resumed run goes on with what it had.

    Attributes:
        changes: What is to be written.
        values: Raw name -> value of everything that the run's recommendation decided, changed or not.
        message: What to say.
    """

    changes: tuple[Change, ...]
    values: Mapping[str, Any]
    message: str


def plan_resumption(
    stored: StoredRun,
    settings: Mapping[str, Setting],
    *,
    layout: BatchLayout | None = None,
    written_since: Mapping[str, Rewrite] | None = None,
) -> ResumptionPlan:
    """Plan how settings go back to what the checkpoint's run was made with.

    What that run's recommendation wrote is written again. What another recommendation has written since is taken back. A value that the
    user passes now and that differs is overruled, and named; the length of training is not, since to train longer is what many resume for.

    Args:
        stored: What the checkpoint says.
        settings: Canonical name -> the value now, and who chose it.
        layout: How the batch is put together now, so that a global batch survives another number of processes.
        written_since: Raw name -> what another recommendation rewrote since.
    """
    by_raw = {setting.raw_name: setting for setting in settings.values()}
    values: dict[str, Any] = {}
    changes: list[Change] = []
    notes: list[str] = []
    for raw, rewrite in stored.rewrites.items():
        setting = by_raw.get(raw) or settings.get(canonical_name(raw))
        if setting is None:
            notes.append(f"{raw} was {format_value(rewrite.applied)} and no longer exists")
            continue
        values[raw] = wanted = _wanted(raw, rewrite, stored, layout)
        if same_value(setting.value, wanted):
            continue
        since = (written_since or {}).get(setting.raw_name)
        is_users = setting.source is Source.USER and since is None and not same_value(setting.value, rewrite.requested)
        if is_users and setting.name in names_with_role(Role.LENGTH):
            notes.append(f"{raw} is {format_value(setting.value)}, as you ask now; the recommendation had {format_value(wanted)}")
            continue
        if not stored.is_complete and not (setting.name in names_that_keep_shapes() or "dropout" in raw.lower()):
            notes.append(f"{raw} stays {format_value(setting.value)}: it may change a shape, and the layers exist already")
            continue
        if is_users:
            notes.append(f"{raw}={format_value(setting.value)} of this call is not used: the run goes on with {format_value(wanted)}")
        changes.append(typed(Change(setting.name, setting.raw_name, setting.value, wanted, Source.RESUME, "the run it resumes had it")))
    for raw, since in (written_since or {}).items():
        setting = by_raw.get(raw)
        if setting is not None and raw not in stored.rewrites and same_value(setting.value, since.applied):
            reason = "another recommendation wrote it, and the run it resumes did not have it"
            changes.append(Change(setting.name, raw, setting.value, since.requested, Source.RESUME, reason))
    notes += _optimizer_conflicts(settings, stored, {change.name for change in changes})
    if pinned_recommendation() not in (None, stored.recommendation_id):
        notes.append("METAHP_PIN is not used on a resumed run")
    return ResumptionPlan(tuple(changes), values, _message(stored, changes, notes))


def start_or_continue(history: History, stored: StoredRun | None, *, may_continue: bool = True, **fields: Any) -> RunRecorder:
    """Start the row of a run, or go on with that of the run it resumes.

    Args:
        history: Open history.
        stored: The run that is resumed, None for a fresh start.
        may_continue: Whether the row of a run that stopped may go on; otherwise it is named as the parent.
        **fields: Arguments of ``History.start_run``.
    """
    earlier = None if stored is None else stored.run_id
    if earlier is not None and may_continue:
        try:
            if history.run(earlier).status in CONTINUED_STATUSES:
                return history.start_run(**fields, resume=earlier)
        except MetaHPError as error:  # another history, a row that still seems to be running, or nothing can be read just now
            _log.debug("a run of its own is started, since %s", error)
    return history.start_run(**fields, parent_run_id=earlier)


def _wanted(raw: str, rewrite: Rewrite, stored: StoredRun, layout: BatchLayout | None) -> Any:
    """Keep the global batch of the run where it goes on with another number of processes."""
    is_batch = canonical_name(raw) == PER_DEVICE_BATCH_SIZE and layout is not None and stored.global_batch_size is not None
    if not is_batch or layout is None or stored.world_size in (None, layout.world_size):
        return rewrite.applied
    restored = [item.applied for name, item in stored.rewrites.items() if canonical_name(name) == ACCUMULATION]
    return split_global(stored.global_batch_size or 1, layout.world_size, restored or [layout.accumulation]).per_device


def _optimizer_conflicts(settings: Mapping[str, Setting], stored: StoredRun, rewritten: set[str]) -> list[str]:
    notes = []
    for raw, value in stored.hparams.items():
        name = canonical_name(str(raw))
        setting = settings.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in names_in_optimizer_state() or name in rewritten or setting is None or not is_number:
            continue
        if not same_value(setting.value, value):
            notes.append(
                f"{raw} is {format_value(setting.value)} in this call and {format_value(value)} in the checkpoint, whose optimizer state "
                "is loaded: training goes on with the latter"
            )
    return notes


def _message(stored: StoredRun, changes: list[Change], notes: list[str]) -> str:
    where = os.path.basename(stored.checkpoint.rstrip("/")) or stored.checkpoint
    if changes:
        first = f"metahp: {describe_changes(changes)}, as in the run that is resumed from {where}"
    else:
        first = f"metahp: nothing changed; the run resumes from {where}, and a resumed run keeps its values"
    lines = [first + (f" (it followed recommendation {stored.recommendation_id})" if stored.recommendation_id else "")]
    return "\n".join(lines + [f"  {note}" for note in notes])
