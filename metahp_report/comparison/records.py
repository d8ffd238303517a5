"""The result of a live comparison: plain frozen records, read back from the history alone.

``reader.load_comparison(history, comparison_id)`` finds the runs of a comparison by what is noted in their description, and returns a
``ComparisonResult``: the plan, every search (one method on one task with one seed) with its evaluations, and the figures over them.
An unfinished comparison is read as well: ``is_complete`` is then False, and the figures are those of what is there.

What is stored: each evaluation is an ordinary training run, recorded by the callbacks users use, with
``description["comparison"] = {"id", "task", "size", "method", "seed", "index", "config", "decision_s", ...}``; the plan is a run of
framework ``comparison`` without objective, which nothing is ever learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from store.records import RunStatus

KEY = "comparison"
"""Name of the entry in a run's description; also the framework of a plan's run."""
CONTROLS = ("default", "constant-1e-2", "constant-3e-3", "schedule-free", "prodigy")
"""Methods that need no tuning and no past: one configuration, one evaluation."""
GRID_LEVELS = 3
"""Levels of a range in a grid: low, middle and high, as people write them down."""


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What is compared.

    Attributes:
        tasks: Names of the tasks.
        methods: Names of the methods.
        budget: Evaluations of each search.
        seeds: Number of seeds, counted from 0.
        size: ``tiny``, ``small`` or ``full``.
        max_seconds: Seconds after which a search starts no further evaluation; None: only evaluations are counted.
        jobs: Processes that worked side by side.
        past: Where the meta-models' history came from: ``history``, ``starter`` or ``tasks``.
        origin: The same in a sentence, with its size.
        data: Where the data came from.
        hardware: What it ran on, in words.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    budget: int
    seeds: int
    size: str
    max_seconds: float | None = None
    jobs: int = 1
    past: str = "tasks"
    origin: str = ""
    data: str = ""
    hardware: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-compatible."""
        return {**asdict(self), "tasks": list(self.tasks), "methods": list(self.methods)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ComparisonPlan:
        """Rebuild a plan; keys of a newer version are left out."""
        known = {key: value for key, value in values.items() if key in cls.__dataclass_fields__}
        return cls(**{**known, "tasks": tuple(known["tasks"]), "methods": tuple(known["methods"])})


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is known of a task of the comparison.

    Attributes:
        name: Its name, e.g. ``text``.
        about: Data and model in a sentence.
        objective: Metric that chooses, without ``eval_`` or ``val_``, e.g. ``accuracy``.
        direction: ``min`` or ``max``.
        metrics: Names of all metrics, the objective first.
        space: Hyperparameter -> the values of its grid in order, or ``{"low", "high", "log"}`` of a range.
        defaults: What the libraries do where nobody sets anything.
    """

    name: str
    about: str
    objective: str
    direction: str
    metrics: tuple[str, ...]
    space: Mapping[str, Any]
    defaults: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules that one device used while a run was open, by the run or by whoever else, and where the figure comes from."""

    device: str
    joules: float
    source: str


@dataclass(frozen=True, slots=True)
class RecordedPrediction:
    """What a meta-model expected before the evaluation; ``unit`` is ``rank`` or ``objective``, the interval covers 80 %.

    ``gain_probability`` is that of doing better than the user's own values; None where it was not asked or not known.
    """

    value: float
    low: float
    high: float
    unit: str
    gain_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One configuration, trained.

    Attributes:
        run_id: The run in the history; its curves are there.
        index: Number within the search, from 0.
        config: Hyperparameter -> value, as in the task's space.
        status: How it ended; a failing configuration is an outcome.
        value: Objective on the validation split at the end of training; None where training failed or diverged.
        best_value: The best of all epochs, likewise.
        metrics: Every validation metric at the end of training.
        decision_s: Seconds the method took to choose it.
        train_s: Seconds of training with its validations.
        elapsed_s: Seconds of the search up to its end: all that was decided and trained so far.
        cpu_s: CPU seconds, those of the decision included; None if not measured.
        gpu_s: GPU seconds; None where no GPU was used.
        gpu_percent: Mean utilisation of the GPUs in percent; None likewise.
        energy: Joules by device; empty: not measured.
        prediction: What the meta-model expected; None where none was asked.
        note: What the method said of its choice.
        error: What ended it, if something did.
    """

    run_id: str
    index: int
    config: Mapping[str, Any]
    status: RunStatus
    value: float | None
    best_value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    decision_s: float = 0.0
    train_s: float = 0.0
    elapsed_s: float = 0.0
    cpu_s: float | None = None
    gpu_s: float | None = None
    gpu_percent: float | None = None
    energy: tuple[Energy, ...] = ()
    prediction: RecordedPrediction | None = None
    note: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One method on one task with one seed.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        seed: Seed of split, initialisation and method.
        evaluations: In their order; an interrupted search has fewer than the budget.
        chosen: Index of the evaluation with the best validation value; None if every one failed.
        test: Metrics of the chosen model on the test split. Those of the other models are reported nowhere.
        is_complete: Whether the method has used its budget or had nothing left to try.
    """

    task: str
    method: str
    seed: int
    evaluations: tuple[Evaluation, ...]
    chosen: int | None
    test: Mapping[str, float]
    is_complete: bool

    @property
    def best(self) -> Evaluation | None:
        """The chosen evaluation."""
        return None if self.chosen is None else self.evaluations[self.chosen]

    @property
    def seconds(self) -> float:
        """Seconds of the whole search."""
        return self.evaluations[-1].elapsed_s if self.evaluations else 0.0

    def best_so_far(self, direction: str) -> list[float | None]:
        """Return the best validation value after each evaluation; None as long as every one has failed."""
        found: list[float | None] = []
        better = min if direction == "min" else max
        for evaluation in self.evaluations:
            last = found[-1] if found else None
            known = [value for value in (last, evaluation.value) if value is not None]
            found.append(better(known) if known else None)
        return found


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the seeds: mean, standard deviation (0 for one seed) and how many seeds have one; ``mean`` None if none has."""

    mean: float | None
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: list[float | None]) -> Spread:
        """Summarise values; None entries are seeds without one."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        if not known:
            return cls(None, None, 0)
        mean = sum(known) / len(known)
        sd = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1)) if len(known) > 1 else 0.0
        return cls(mean, sd, len(known))


@dataclass(frozen=True, slots=True)
class TaskMethodSummary:
    """The table of one task: a line a method, each figure over seeds.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        best: Best validation value of any epoch of any evaluation.
        final: Validation value of the chosen configuration at the end of its training; what chose it.
        test: Metric -> its value of the chosen model on the test split.
        evaluations: Evaluations done.
        failed: Of these, how many failed or diverged.
        seconds: Seconds of the search, decisions included.
        decision_s: Seconds of the decisions alone.
        convergence_evaluations: Evaluations until within 1 % of the best any method found with the same seed.
        convergence_s: Seconds until then.
        n_converged: Seeds that came so far.
        best_at_common_seconds: Validation value after as many seconds as every method had (see ``docs/live.md``).
        cpu_hours: CPU hours; None if not measured.
        gpu_hours: GPU hours; None where no GPU was used.
        gpu_percent: Mean utilisation of the GPUs in percent.
        energy_j: Joules of one search; mean None: not measured.
        energy_source: Where the joules come from, or ``not measured``.
        reduction: Baseline (``grid``, ``random``) -> share of training time saved until as good as the baseline's best (1 %
            tolerated); negative where it took longer; mean None where it never came so far.
        first_error: Hyperparameter -> distance of the first recommendation from the best configuration any method found: log10 of the
            learning rate, log2 of the batch size, absolute for the others, 0 or 1 for labels.
        chosen_error: The same of the configuration chosen in the end.
    """

    task: str
    method: str
    best: Spread
    final: Spread
    test: Mapping[str, Spread]
    evaluations: Spread
    failed: Spread
    seconds: Spread
    decision_s: Spread
    convergence_evaluations: Spread
    convergence_s: Spread
    n_converged: int
    best_at_common_seconds: Spread
    cpu_hours: Spread
    gpu_hours: Spread
    gpu_percent: Spread
    energy_j: Spread
    energy_source: str
    reduction: Mapping[str, Spread]
    first_error: Mapping[str, Spread]
    chosen_error: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class MethodStanding:
    """How a method stands over all tasks and seeds. Lists have an entry per number of evaluations, from 1 to the budget.

    Attributes:
        method: Its name.
        regret: Mean normalised regret of the best validation value so far: 0 is the best any method found on the task with that seed, 1
            the median of all its evaluations or worse, or nothing found yet.
        ci95: Lower and upper end of a 95 % interval of it, bootstrapped over tasks in pairs with the other methods.
        mean_rank: Mean rank among the methods, 1 is best; ties share.
        difference: ``metahp`` minus this method, below 0 where metahp is better; None without metahp, and for metahp itself.
        difference_ci95: Its paired interval.
    """

    method: str
    regret: tuple[float, ...]
    ci95: tuple[tuple[float, float], ...]
    mean_rank: tuple[float, ...]
    difference: tuple[float, ...] | None = None
    difference_ci95: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """A live comparison as the history knows it.

    Attributes:
        id: Its id.
        created_utc: When it was started.
        plan: What is compared.
        tasks: Name -> what is known of the task.
        searches: Every search begun, by task, method and seed in the order of the plan.
        summaries: A line for each task and method that has an evaluation.
        standings: A line for each method that has finished every task and seed; ranks are among these.
        n_missing: Searches that are not complete.
    """

    id: str
    created_utc: str
    plan: ComparisonPlan
    tasks: Mapping[str, TaskInfo]
    searches: tuple[SearchResult, ...]
    summaries: tuple[TaskMethodSummary, ...]
    standings: tuple[MethodStanding, ...]
    n_missing: int

    @property
    def is_complete(self) -> bool:
        """Whether every search is."""
        return self.n_missing == 0

    def search(self, task: str, method: str, seed: int) -> SearchResult | None:
        """Return one search, None if it was not begun."""
        wanted = (task, method, seed)
        return next((item for item in self.searches if (item.task, item.method, item.seed) == wanted), None)

    def summary(self, task: str, method: str) -> TaskMethodSummary | None:
        """Return one line of a task's table, None if there is none."""
        return next((item for item in self.summaries if (item.task, item.method) == (task, method)), None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dictionaries and lists; enums are strings, and a number that is not finite stays one."""
        return asdict(self)
