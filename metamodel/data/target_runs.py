"""The runs that a query about one task rests on: its own, those of its siblings, and what each of them says about a run of this length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from metamodel.data.alignment import Kinship, align
from metamodel.data.observations import LENGTH, TaskRuns
from metamodel.data.run_groups import VARIANT_CORRELATION, RunGroups
from metamodel.space.arrays import FloatArray
from metamodel.space.encoding import fit_encoder

if TYPE_CHECKING:
    from store import History

PLAIN = "plain"
"""Stands for an objective of which nothing changes the meaning."""
SAME_LENGTH = 4 / 3
"""Ratio of two lengths up to which runs count as equally long."""
ROUNDING = 1.05
"""Ratio of two lengths that may come of counting steps."""
LENGTH_CORRELATION = 0.85
"""Correlation of outcomes at twice the length. Of recorded learning curves (24 tasks of LCBench, 51 epochs) about .9 for each doubling
among the better half of configurations, and .83 among the best quarter."""
MIN_SHARE = 1 / 16
"""Share of the length that is asked about from which a shorter run counts: the first steps prefer rates that a whole training does not."""
DEFINITION_CORRELATION = 0.9
"""Correlation of two definitions of one objective, such as a loss with and without label smoothing."""
MAX_CURVES = 400
"""Learning curves that are read for one query, the task's own first."""


@dataclass(frozen=True, slots=True)
class _Group:
    """What runs must share to be compared by their outcomes as they are."""

    sibling_id: str = ""
    definition: str = ""
    octave: int = 0
    is_cut: bool = False
    is_other_version: bool = False

    @property
    def kinship(self) -> Kinship:
        """How it is related to a run of this task, definition, length and version."""
        fixed = LENGTH_CORRELATION ** abs(self.octave)
        fixed *= (DEFINITION_CORRELATION if self.definition else 1.0) * (VARIANT_CORRELATION if self.is_other_version else 1.0)
        return Kinship(fixed, bool(self.sibling_id) or self.is_cut, bool(self.definition) or self.octave != 0)


@dataclass(frozen=True, slots=True, eq=False)
class TargetRuns:
    """The runs that a query about one task rests on.

    Attributes:
        runs: Of the task and its siblings, with their ``groups``; None without any.
        n_sibling_runs: How many of them are of siblings.
        n_siblings: Of how many siblings.
        left_out: Why further runs are not used -> how many.
    """

    runs: TaskRuns | None = None
    n_sibling_runs: int = 0
    n_siblings: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def target_runs(
    history: History,
    task_id: str,
    target: TaskRuns | None,
    siblings: Sequence[TaskRuns],
    definition: str,
    variant: str | None = None,
    planned_epochs: float | None = None,
) -> TargetRuns:
    """Join a task's runs with those of its siblings, with outcomes on one scale.

    Outcomes of longer runs are read off their learning curves at the length that is asked about. Those of shorter runs, and of runs whose
    objective means something else (label smoothing, a limited validation), are comparable in order only.

    Runs far shorter than what is asked about are left out, and short ones do not widen the range of values that were seen.

    Args:
        history: Where learning curves are.
        task_id: Id of the task.
        target: The task's own runs, None without any.
        siblings: Runs of its siblings.
        definition: What changes the meaning of the objective that is asked about; see ``definition_of``.
        variant: Version of the model's source; None where it does not count.
        planned_epochs: Length that is asked about, in passes over the training data; None where it does not count.
    """
    members = [task for task in (target, *siblings) if task is not None and len(task)]
    if not members:
        return TargetRuns()
    joined = replace(_joined(members), task_id=task_id)
    left_out: dict[str, int] = {}
    origins = ["" if task is target else task.task_id for task in members for _ in range(len(task))]
    if planned_epochs is not None and (is_too_short := (joined.epochs < MIN_SHARE * planned_epochs) & ~joined.is_final).any():
        keep = np.flatnonzero(~is_too_short).tolist()
        left_out = {f"shorter than a sixteenth of this run's {planned_epochs:.3g} epochs": len(joined) - len(keep)}
        joined, origins = joined.subset(keep), [origins[i] for i in keep]
        if not keep:
            return TargetRuns(left_out=left_out)
    values, is_cut = joined.values, np.zeros(len(joined), dtype=bool)
    if planned_epochs is not None:
        values, is_cut = _at_length(history, joined, planned_epochs)
    keys = [
        _Group(
            origin,
            "" if of_run == definition else of_run or PLAIN,
            0 if cut else _octave(epochs, planned_epochs, is_final=bool(is_final)),
            bool(cut),
            variant is not None and version != variant,
        )
        for origin, of_run, epochs, is_final, cut, version in zip(
            origins, joined.definitions, joined.epochs, joined.is_final, is_cut, joined.variants, strict=True
        )
    ]
    found = _grouped(replace(joined, values=values), keys, planned_epochs)
    of_siblings = [origin for origin in origins if origin]
    return TargetRuns(found, len(of_siblings), len(set(of_siblings)), left_out)


def _grouped(runs: TaskRuns, keys: Sequence[_Group], planned_epochs: float | None) -> TaskRuns:
    groups = list(dict.fromkeys([_Group(), *keys]))
    index = np.array([groups.index(key) for key in keys], dtype=np.intp)
    kinships = [group.kinship for group in groups]
    if not any(kin.is_learned or kin.is_order_only for kin in kinships):
        correlations = np.array([kin.correlation for kin in kinships])
        return replace(
            runs, groups=RunGroups(np.minimum(index, 1), correlations[index]), related=_related(groups, runs, index, planned_epochs)
        )
    configs = runs.configs
    if planned_epochs is not None:  # their outcomes are brought to this length, so that it tells them apart no longer
        configs = tuple({**config, LENGTH: planned_epochs} if LENGTH in config else config for config in configs)
    # What failed has no level, and takes the worst value afterwards.
    measured = np.where(runs.is_failed, math.nan, runs.values)
    found = align(fit_encoder([list(configs)]).encode(configs), measured, index, kinships)
    return replace(
        runs,
        configs=configs,
        values=found.values,
        groups=RunGroups(index, found.correlations[index]),
        is_short=np.array([key.octave < 0 for key in keys]),
        is_level_known=found.is_level_known,
        related=_related(groups, runs, index, planned_epochs),
    )


def _related(groups: Sequence[_Group], runs: TaskRuns, index: npt.NDArray[np.intp], planned_epochs: float | None) -> dict[str, int]:
    """Return in which way runs of the task are only related to what is asked about -> how many; a sibling's are counted elsewhere."""
    found: dict[str, int] = {}
    for place, group in enumerate(groups):
        is_member = index == place
        if place == 0 or group.sibling_id or not is_member.any():
            continue
        ways = ["with other model code"] if group.is_other_version else []
        if group.definition:
            ways.append("with the usual objective" if group.definition == PLAIN else f"with {group.definition}")
        if group.octave or group.is_cut:
            low, high = (f"{bound:.4g}" for bound in (runs.epochs[is_member].min(), runs.epochs[is_member].max()))
            ways.append(f"of {low if low == high else f'{low} to {high}'} {'epoch' if high == '1' else 'epochs'}")
        read_at = f"read at epoch {planned_epochs:.4g}" if group.is_cut else ""
        notes = ", ".join(note for note in (read_at, "in order only" if group.kinship.is_order_only else "") if note)
        found[" ".join(ways) + (f" ({notes})" if notes else "")] = int(is_member.sum())
    return found


def comparable(task: TaskRuns) -> TaskRuns:
    """Return a source task with the outcomes of all its definitions of the objective on the scale of the most frequent one."""
    kinds = set(task.definitions)
    if len(kinds) < 2:
        return task
    most = max(sorted(kinds), key=task.definitions.count)
    return _grouped(task, [_Group(definition="" if kind == most else kind or PLAIN) for kind in task.definitions], None)


def _octave(epochs: float, planned_epochs: float | None, *, is_final: bool) -> int:
    """Return how many times a run's length doubles to the one that is asked about, away from 0 unless they are about equal.

    A run that ended by itself is as good as a longer one.
    """
    if planned_epochs is None or not (math.isfinite(epochs) and epochs > 0):
        return 0
    ratio = math.log2(epochs / planned_epochs)
    if abs(ratio) <= math.log2(SAME_LENGTH) or (is_final and ratio < 0):
        return 0
    return int(math.copysign(max(1, round(abs(ratio))), ratio))


def _at_length(history: History, runs: TaskRuns, planned_epochs: float) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return outcomes with those of longer runs read off at a length, shape ``(n,)``, and which these are, shape ``(n,)``."""
    values, is_cut = runs.values.copy(), np.zeros(len(runs), dtype=bool)
    longer = np.flatnonzero((runs.epochs > SAME_LENGTH * planned_epochs) & ~runs.is_failed)[:MAX_CURVES]
    if not len(longer):
        return values, is_cut
    curves = history.objective_curves([runs.run_ids[i] for i in longer])
    for i in longer:
        shares, curve = curves.get(runs.run_ids[i], ((), ()))
        points = [(share * runs.epochs[i], runs.in_units(value)) for share, value in zip(shares, curve, strict=True)]
        for length in (ROUNDING * planned_epochs, SAME_LENGTH * planned_epochs):
            reached = [value for epochs, value in points if epochs <= length and math.isfinite(value)]
            if reached:
                values[i], is_cut[i] = max(reached), True
                break
    return values, is_cut


def _joined(tasks: Sequence[TaskRuns]) -> TaskRuns:
    """Put the runs of several tasks one after the other; what else is known is that of the first."""
    if len(tasks) == 1:
        return tasks[0]
    return replace(
        tasks[0],
        run_ids=tuple(run_id for task in tasks for run_id in task.run_ids),
        configs=tuple(config for task in tasks for config in task.configs),
        values=np.concatenate([task.values for task in tasks]),
        is_diverged=np.concatenate([task.is_diverged for task in tasks]),
        is_oom=np.concatenate([task.is_oom for task in tasks]),
        variants=tuple(variant for task in tasks for variant in task.variants),
        definitions=tuple(definition for task in tasks for definition in task.definitions),
        epochs=np.concatenate([task.epochs for task in tasks]),
        is_final=np.concatenate([task.is_final for task in tasks]),
    )
