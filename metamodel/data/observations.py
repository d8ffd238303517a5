"""From a history to what a meta-model learns from: the usable runs of each task, oriented so that larger is better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from metamodel.data.run_groups import RunGroups
from metamodel.data.task import TaskDescription
from metamodel.space.arrays import FloatArray
from metamodel.space.batch import as_seen_by_model
from metamodel.space.dimensions import is_number
from metamodel.space.encoding import plain_numbers
from metamodel.space.run_configs import column_of
from store.learning_columns import LearningRun
from store.names import Direction, base_metric_name
from store.repeats import DEFINITION_SEPARATOR, definition_of_run, without_repetitions
from store.statuses import RunStatus

if TYPE_CHECKING:
    from store.records import RunRecord

AnyRun: TypeAlias = "RunRecord | LearningRun"

USABLE = frozenset({RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DIVERGED, RunStatus.OOM, RunStatus.INTERRUPTED})
"""Interrupted runs count where they reached a validation: the epochs reached say how far."""

LENGTH = "num_epochs"
"""Name of the length of a run, in passes over the training data, among its hyperparameters."""
NO_OUTCOME = "without an outcome"
"""Why a run is not used whose objective was not logged, or only where it is no outcome: for single batches, or before training."""
REPETITION = "the same run again, seed included"
MAX_UNLOGGED = 5
WIDE_RATIO = 1e3
"""Losses that are positive and differ by more than this factor are read on a logarithmic scale."""
MAX_STANDARDISED = 4.0
"""Standard deviations from the mean beyond which an outcome of a past task counts no further."""


@dataclass(frozen=True, eq=False)
class TaskRuns:
    """The usable runs of one task under one objective.

    Attributes:
        task_id: Id of the task.
        name: Its name, for messages.
        objective: Base name of the metric.
        direction: ``min`` or ``max``.
        description: What is known of the task.
        run_ids: Ids, ``n`` of them, oldest first.
        configs: Canonical name -> value of each run.
        values: Oriented outcome, shape ``(n,)``: larger is better whatever the direction; NaN for failed runs.
        is_diverged: Shape ``(n,)``.
        is_oom: Shape ``(n,)``.
        variants: Model source of each run, None where unknown.
        task_order: Start of the newest run, for "most recent".
        definitions: What changes the meaning of the objective in each run, as one text; empty where nothing does.
        epochs: Length that each run reached, in passes over the training data, shape ``(n,)``; NaN where unknown.
        is_final: Which runs ended by themselves, as by early stopping, shape ``(n,)``: more training would have gained nothing.
        groups: Which runs are exactly what a query is about, None where all are.
        is_short: Which runs are shorter than what a query is about, shape ``(n,)``; None where none is.
        is_level_known: Whether the outcomes are on the scale of what is asked about; else only their order is.
        related: In which way runs of the task are only related to what a query is about -> how many.
    """

    task_id: str
    name: str
    objective: str
    direction: Direction
    description: TaskDescription
    run_ids: tuple[str, ...]
    configs: Sequence[Mapping[str, Any]]
    values: FloatArray
    is_diverged: npt.NDArray[np.bool_]
    is_oom: npt.NDArray[np.bool_]
    variants: tuple[str | None, ...]
    task_order: str = ""
    definitions: tuple[str, ...] = ()
    epochs: FloatArray = field(default_factory=lambda: np.zeros(0))
    is_final: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    groups: RunGroups | None = None
    is_short: npt.NDArray[np.bool_] | None = None
    is_level_known: bool = True
    related: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in what is unknown of all runs."""
        if not self.definitions:
            object.__setattr__(self, "definitions", ("",) * len(self.run_ids))
        if len(self.epochs) != len(self.run_ids):
            object.__setattr__(self, "epochs", np.full(len(self.run_ids), math.nan))
        if len(self.is_final) != len(self.run_ids):
            object.__setattr__(self, "is_final", np.zeros(len(self.run_ids), dtype=bool))

    def __len__(self) -> int:
        """Return the number of runs ``n``."""
        return len(self.run_ids)

    @property
    def defining_names(self) -> frozenset[str]:
        """Hyperparameters that changed the meaning of the objective, so that runs are not compared across their values."""
        return frozenset(part.split("=", 1)[0] for text in set(self.definitions) for part in text.split(DEFINITION_SEPARATOR))

    @property
    def has_outcome(self) -> npt.NDArray[np.bool_]:
        """Runs with an outcome, shape ``(n,)``: all but out-of-memory ones."""
        return ~self.is_oom

    @property
    def is_failed(self) -> npt.NDArray[np.bool_]:
        """Diverged or out of memory, shape ``(n,)``."""
        return self.is_diverged | self.is_oom

    @cached_property
    def filled(self) -> FloatArray:
        """Oriented outcome with the worst finite value of the task for diverged runs, shape ``(n,)``; NaN for out of memory.

        A diverged run is a bad outcome of unknown size, so it shares the last rank.
        """
        finite = self.values[np.isfinite(self.values)]
        worst = float(finite.min()) if finite.size else 0.0
        return np.where(self.is_oom, np.nan, np.where(np.isfinite(self.values), self.values, worst))

    @cached_property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        return {}

    def number_range(self, name: str) -> tuple[float, float]:
        """Return the smallest and the largest finite number that a hyperparameter had, ``(inf, -inf)`` where it had none.

        What a short run had is no evidence that a longer one bears it.
        """
        if name not in self._ranges:  # a table is asked many times, and has many runs
            values = column_of(self.configs, name)
            if self.is_short is not None and not self.is_short.all():
                values = [value for value, is_short in zip(values, self.is_short, strict=True) if not is_short]
            plain = plain_numbers(values)
            numbers = np.array([float(value) for value in values if is_number(value)]) if plain is None else plain[np.isfinite(plain)]
            self._ranges[name] = (float(numbers.min()), float(numbers.max())) if len(numbers) else (math.inf, -math.inf)
        return self._ranges[name]

    @property
    def best_run_id(self) -> str | None:
        """Id of the best run, of those that are exactly what a query is about where there are any; None without a finite outcome."""
        is_exact = np.ones(len(self), dtype=bool) if self.groups is None else self.groups.index == 0
        finite = np.where(np.isfinite(self.values), self.values, -np.inf)
        keep = is_exact if np.isfinite(finite[is_exact]).any() else np.ones(len(self), dtype=bool)
        best = int(np.argmax(np.where(keep, finite, -np.inf)))
        return self.run_ids[best] if np.isfinite(finite[best]) else None

    def subset(self, keep: list[int]) -> TaskRuns:
        """Return the task with some of its runs only."""
        return replace(
            self,
            run_ids=tuple(self.run_ids[i] for i in keep),
            configs=tuple(self.configs[i] for i in keep),
            values=self.values[keep],
            is_diverged=self.is_diverged[keep],
            is_oom=self.is_oom[keep],
            variants=tuple(self.variants[i] for i in keep),
            definitions=tuple(self.definitions[i] for i in keep),
            epochs=self.epochs[keep],
            is_final=self.is_final[keep],
        )

    def in_units(self, oriented: float) -> float:
        """Return an oriented value in the units and direction of the objective."""
        return -oriented if self.direction is Direction.MIN else oriented


@dataclass(frozen=True, slots=True)
class LearningTable:
    """Everything a history offers for learning.

    Attributes:
        tasks: Tasks with at least one usable run, by ``(task id, objective)``.
        left_out: Why runs are not used -> how many.
        n_finished: Finished runs in the history, used or not.
        unlogged: Ids of the newest runs whose objective has no outcome, up to ``MAX_UNLOGGED``.
        logged_names: Metrics that these logged.
        by_task: Task id -> the same for this task only.
    """

    tasks: tuple[TaskRuns, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    n_finished: int = 0
    unlogged: tuple[str, ...] = ()
    logged_names: tuple[str, ...] = ()
    by_task: Mapping[str, LearningTable] = field(default_factory=dict)

    def describe_left_out(self) -> str:
        """Say what was left out and why; for runs without an outcome, which metrics they logged. Empty where nothing was."""
        if not self.left_out:
            return ""
        text = ", ".join(f"{count} x {reason}" for reason, count in sorted(self.left_out.items()))
        return f"runs left out: {text}" + (f" (logged were: {', '.join(self.logged_names)})" if self.logged_names else "")

    def of_task(self, task_id: str, objective: str | None = None) -> TaskRuns | None:
        """Return the runs of a task; with several objectives and none named, those of the most recent run."""
        wanted = None if objective is None else base_metric_name(objective)
        found = [task for task in self.tasks if task.task_id == task_id and wanted in (None, task.objective)]
        return max(found, key=lambda task: task.task_order, default=None)


def rank_scores(values: FloatArray) -> FloatArray:
    """Map outcomes to normal scores of their ranks, the warp that makes tasks comparable.

    Args:
        values: Oriented outcomes, shape ``(n,)``, finite; ties share their mean rank.

    Returns:
        ``Phi^-1((rank - 0.5) / n)``, shape ``(n,)``.
    """
    if values.ndim != 1:
        raise AssertionError(f"values must have shape (n,), got {values.shape}")
    return np.asarray(norm.ppf((rankdata(values) - 0.5) / max(len(values), 1)), dtype=np.float64)


def past_scores(values: FloatArray) -> FloatArray:
    """Map the outcomes of a source task to what is learned from it: half normal scores of ranks, half standardised outcomes.

    Ranks make tasks of any unit comparable; how far the bad ones fall behind is lost in them, and it shows what to avoid. Standardised
    outcomes are cut at ``MAX_STANDARDISED``, where one extreme run would leave the others no difference.

    Args:
        values: Oriented outcomes, shape ``(n,)``, finite.

    Returns:
        Shape ``(n,)``, increasing in the outcome.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(values.std()) if len(values) else 0.0
    if not math.isfinite(spread) or spread <= 0:
        return rank_scores(values)
    standardised = np.clip((values - values.mean()) / spread, -MAX_STANDARDISED, MAX_STANDARDISED)
    return np.asarray(0.5 * rank_scores(values) + 0.5 * standardised, dtype=np.float64)


def single_task_scores(values: FloatArray) -> FloatArray:
    """Map the outcomes of one task to what a single-task GP learns.

    Nothing has to be comparable with other tasks, so distances are kept: many runs around an optimum differ by little, and their ranks
    would not. What falls behind by more than twice the lead of the best is drawn in by its logarithm, since how bad it is does not matter;
    losses that span orders of magnitude are read as logarithms altogether.

    Args:
        values: Oriented outcomes, shape ``(n,)``, finite.

    Returns:
        Shape ``(n,)``, increasing in the outcome, mean 0 and variance 1; 0 where all are equal.
    """
    if len(values) == 0:
        return np.zeros(0)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        is_wide = bool((values < 0).all()) and values.min() / values.max() > WIDE_RATIO
        scores = -np.log(-values) if is_wide else np.asarray(values, dtype=np.float64)
        middle = np.median(scores)
        lead = scores.max() - middle
        behind = middle - 2.0 * lead - scores
        if math.isfinite(lead) and lead > 0:
            scores = np.where(behind > 0, middle - 2.0 * lead - lead * np.log1p(np.maximum(behind, 0.0) / lead), scores)
        spread = float(scores.std())
    if not math.isfinite(spread) or spread <= 0:
        return rank_scores(values) if len(np.unique(values)) > 1 else np.zeros(len(values))
    return np.asarray((scores - scores.mean()) / spread, dtype=np.float64)


def build_table(runs: Sequence[AnyRun], task_records: Mapping[str, Any]) -> LearningTable:
    """Group runs into learning tasks by task and objective, counting what is left out and why."""
    left_out: Counter[str] = Counter()
    unlogged: list[str] = []
    groups: dict[tuple[str, str, str | None], list[AnyRun]] = {}
    bases: dict[str | None, str] = {}  # a history has many runs and few objectives
    for run in runs:
        reason = _unusable(run)
        if reason is not None:
            left_out[reason] += 1
            if reason.endswith(NO_OUTCOME):
                unlogged.append(run.id)
            continue
        if run.objective not in bases:
            bases[run.objective] = base_metric_name(str(run.objective))
        groups.setdefault((run.task_id, bases[run.objective], run.direction), []).append(run)
    tasks = []
    for (task_id, objective, direction), members in groups.items():
        members.sort(key=lambda run: run.id)
        distinct = without_repetitions(members)  # observed twice, one draw would pass for two, and noise for nothing
        if len(distinct) < len(members):
            left_out[REPETITION] += len(members) - len(distinct)
        record = task_records.get(task_id)
        tasks.append(_task_runs(task_id, objective, Direction(str(direction)), distinct, record))
    tasks.sort(key=lambda task: (task.task_id, task.objective))
    newest = tuple(sorted(unlogged)[-MAX_UNLOGGED:])
    return LearningTable(tuple(tasks), dict(left_out), sum(run.is_finished for run in runs), newest)


def _unusable(run: AnyRun) -> str | None:
    if run.status not in USABLE:
        # Which of the two an open run is changes with the time alone, and what is read here is kept.
        return "running, or killed" if run.status in (RunStatus.RUNNING, RunStatus.STALE) else f"status {run.status}"
    if run.objective is None or run.direction is None:
        return "no objective"
    has_value = run.objective_best is not None and math.isfinite(run.objective_best)
    if not has_value and run.status not in {RunStatus.DIVERGED, RunStatus.OOM}:
        return f"objective {run.objective!r} {NO_OUTCOME}"
    return None


def _task_runs(task_id: str, objective: str, direction: Direction, runs: list[AnyRun], record: Any) -> TaskRuns:
    sign = -1.0 if direction is Direction.MIN else 1.0
    is_diverged = np.array([run.status is RunStatus.DIVERGED for run in runs], dtype=bool)
    is_oom = np.array([run.status is RunStatus.OOM for run in runs], dtype=bool)
    values = np.array(
        [math.nan if run.objective_best is None or run.status is RunStatus.OOM else sign * run.objective_best for run in runs]
    )
    # A diverged run's best value before it broke is not the outcome of its configuration.
    values[is_diverged | ~np.isfinite(values)] = math.nan
    description = dict(record.description) if record is not None else {}
    for known in {id(run.description): run.description for run in reversed(runs)}.values():  # most runs of a task share one
        description = {**known, **description}
    if record is not None and record.is_named:  # also one that was split off by hand
        description = {**description, "name": record.name}
    return TaskRuns(
        task_id,
        record.name if record is not None else task_id,
        objective,
        direction,
        TaskDescription.from_dict(description),
        tuple(run.id for run in runs),
        tuple(_config(run) for run in runs),
        values,
        is_diverged,
        is_oom,
        tuple(run.variant for run in runs),
        runs[-1].started_utc or runs[-1].id,
        tuple(definition_of_run(run) for run in runs),
        np.array([_length(run, is_planned=False) for run in runs]),
        np.array([run.status is RunStatus.STOPPED for run in runs], dtype=bool),
    )


def _length(run: AnyRun, *, is_planned: bool) -> float:
    """Return how much training the outcome of a run is of, in passes over the training data; NaN where that is unknown.

    Args:
        run: The run.
        is_planned: Whether one that ended by itself counts as long as it was planned: it had nothing more to gain.
    """
    lengths: tuple[Any, Any] = run.hparams.get(LENGTH), run.epochs_reached
    planned, reached = (float(length) if is_number(length) and length > 0 else math.nan for length in lengths)
    if run.status is RunStatus.STOPPED and is_planned and not any(_limits(run.hparams.get(name)) for name in ("max_steps", _LIMIT)):
        return planned if not math.isnan(planned) else reached
    # What was planned in epochs is no length where steps, a time or limited batches decide.
    return reached if not math.isnan(reached) else planned


_LIMIT = "limit_train_batches"


def _limits(value: Any) -> bool:
    """Say whether a number of steps or batches, or a share of them, makes a training shorter than its epochs."""
    return is_number(value) and value > 0 and not (isinstance(value, float) and value == 1.0)


def _config(run: AnyRun) -> dict[str, Any]:
    """Hyperparameters of a run, with its global batch, and how much training its outcome is of."""
    config = as_seen_by_model(run.hparams)
    if not math.isnan(length := _length(run, is_planned=True)):
        config[LENGTH] = length
    if run.model_family is not None:
        config.setdefault("model_family", run.model_family)
    return config
