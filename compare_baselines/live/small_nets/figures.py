"""What the suite shows: regret on validation and test by variant and family, against controls, with paired intervals over tasks.

Regret of an evaluation is ``(best - value) / (best - median)``, oriented so that larger values are better, within a task and seed: ``best``
is the best run without advice (controls, random search, TPE, GP), ``median`` the median random run. It is cut at ``MOST``, so that one
diverged run does not decide a mean. A search is searches by the test value of the run that was best on validation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from compare_baselines.live.small_nets.suite import DAY_ONE, OWN_TASKS, SEARCHED, WITHOUT_PAST
from compare_baselines.live.small_nets.task import FAMILIES, VARIANTS, SmallNet, suite_tasks
from compare_baselines.methods.registry import RANDOM
from compare_baselines.methods.spaces import UnitCube
from metahp_report.comparison.reader import evaluations_by_search, outcomes, value_of
from metahp_report.comparison.records import CONTROLS, KEY, RecordedPrediction
from metamodel.data.units import Unit
from metamodel.space.dimensions import parse_space
from store import History, UnknownTaskError
from store.records import RunRecord
from store.usage import resource_totals

FloatArray = npt.NDArray[np.float64]

MOST = 2.0
"""Regret is cut here."""
NEAR = 0.05
"""Two configurations nearly repeat each other if no encoded coordinate differs by more than this share of its range."""
N_RESAMPLES = 2000
CONSTANTS = ("constant-1e-2", "constant-3e-3")
ADVISED = (" day one", " own tasks")
"""What our meta-model is called by after its kind, with what it knew."""
COMPARISONS = {WITHOUT_PAST: "", SEARCHED: "", DAY_ONE: ADVISED[0], OWN_TASKS: ADVISED[1]}
"""Comparison -> what its methods are called by."""
BINS = (0.0, 0.55, 0.65, 0.75, 0.85, 0.95, 1.001)
"""Edges of the bins of announced probabilities."""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """One evaluation.

    Attributes:
        config: What was trained.
        val: Oriented value on validation, NaN where training failed.
        test: Likewise on test.
        seconds: Seconds of processor that training took.
        prediction: What the meta-model expected.
        note: What the method said.
    """

    config: Mapping[str, object]
    val: float
    test: float
    seconds: float
    prediction: RecordedPrediction | None
    note: str


@dataclass(frozen=True, slots=True)
class TaskSearches:
    """The searches of one task and seed.

    Attributes:
        task: The task.
        seed: The seed.
        runs: Method -> its evaluations in their order.
    """

    task: SmallNet
    seed: int
    runs: Mapping[str, Sequence[SuiteRun]]

    def regret(self, method: str, n: int, *, on_test: bool) -> float:
        """Return the regret after ``n`` evaluations of the one that was best on validation; NaN where there are fewer."""
        runs = self.runs.get(method, ())
        if len(runs) < n:
            return math.nan
        ordered = sorted(runs if method == RANDOM else runs[:n], key=lambda run: math.inf if math.isnan(run.val) else -run.val)
        # Of random runs the expectation over all draws of n, not the first n: run i is the best of them so often.
        chances = [math.comb(len(ordered) - 1 - i, n - 1) / math.comb(len(ordered), n) for i in range(len(ordered))]
        return float(sum(chance * self._regret_of(run, on_test) for chance, run in zip(chances, ordered, strict=True) if chance > 0))

    def _regret_of(self, run: SuiteRun, on_test: bool) -> float:
        value = run.test if on_test else run.val
        top, middle = self._anchors(on_test)
        return MOST if math.isnan(value) else min(MOST, (top - value) / max(top - middle, 1e-12))

    def is_worse(self, run: SuiteRun) -> bool:
        """Say whether a run is worse than the defaults on validation and on test."""
        user = self.runs["default"][0]
        return not (run.val >= user.val or run.test >= user.test)

    def _anchors(self, on_test: bool) -> tuple[float, float]:
        def values(runs: Iterable[SuiteRun]) -> FloatArray:
            found = np.array([run.test if on_test else run.val for run in runs])
            return np.where(np.isnan(found), np.nanmin(found), found)

        without = [run for method, runs in self.runs.items() if not method.endswith(ADVISED) for run in runs]
        return float(values(without).max()), float(np.median(values(self.runs[RANDOM])))


def read_suite(history: History, size: str = "small", half: str = "all") -> list[TaskSearches]:
    """Read what is done of the suite: every task and seed that has all controls and random search."""
    found = []
    for name in suite_tasks(half):
        task = SmallNet(name)
        try:
            runs = history.runs(task.history_name(size), with_hparams=False)
        except UnknownTaskError:
            continue
        by_seed: dict[int, dict[str, list[SuiteRun]]] = defaultdict(dict)
        for comparison, suffix in COMPARISONS.items():
            for (method, seed), attempts in evaluations_by_search(runs, comparison).items():
                by_seed[seed][method + suffix] = [_read(history, task, run) for run in outcomes(attempts)]
        found += [TaskSearches(task, seed, methods) for seed, methods in sorted(by_seed.items()) if methods.keys() >= {*CONTROLS, RANDOM}]
    return found


def _read(history: History, task: SmallNet, run: RunRecord) -> SuiteRun:
    note = run.description[KEY]
    value, sign = value_of(run), -1.0 if task.direction == "min" else 1.0
    last = {record.name: record.value for record in history.metrics(run.id, f"test_{task.objective}")}
    test = last.get(f"test_{task.objective}")
    return SuiteRun(
        note["config"],
        math.nan if value is None else sign * value,
        math.nan if value is None or test is None else sign * test,
        resource_totals(history, run.id).cpu_s or run.wall_s or 0.0,  # a busy machine stretches the wall clock
        RecordedPrediction(**note["prediction"]) if note.get("prediction") else None,
        note.get("note") or "",
    )


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over tasks with its 95 % interval, bootstrapped over data sets."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return "-" if not self.n else f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def over_tasks(searches: Sequence[TaskSearches], figure: Callable[[TaskSearches], float]) -> Figure:
    """Return the mean of a figure over data sets, each with the mean of its seeds and variants; NaN counts as not there.

    Args:
        searches: Tasks and seeds.
        figure: What is averaged.
    """
    by_data: dict[str, list[float]] = defaultdict(list)
    for item in searches:
        value = figure(item)
        if not math.isnan(value):
            by_data[item.task.same_data[0]].append(value)
    means = np.array([np.mean(values) for values in by_data.values()])
    if not len(means):
        return Figure(math.nan, math.nan, math.nan, 0)
    drawn = np.random.default_rng(0).integers(len(means), size=(N_RESAMPLES, len(means)))
    low, high = np.quantile(means[drawn].mean(1), [0.025, 0.975])
    return Figure(float(means.mean()), float(low), float(high), sum(map(len, by_data.values())))


def shown_methods(searches: Sequence[TaskSearches]) -> list[tuple[str, str, int]]:
    """Return label, method and number of evaluations of each line of a table."""
    names = {method for item in searches for method in item.runs}
    found = [(name, name, 1) for name in CONTROLS]
    found += [(f"random, best of {n}", RANDOM, n) for n in (1, 4, 8, 16)]
    found += [(f"{name}, best of 8", name, 8) for name in ("tpe", "gp")]
    for name in _advised_methods(searches):
        found += [(name, name, 1), (f"{name}, best of 8", name, 8)]
    return [line for line in found if line[1] in names]


def all_rows(searches: Sequence[TaskSearches]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Return every table of the suite by its title."""
    parts = {variant: [item for item in searches if item.task.variant == variant] for variant in VARIANTS}
    parts |= {family: [item for item in searches if item.task.model_family == family] for family in FAMILIES}
    tables = {f"Regret, {name}": regret_rows(part) for name, part in parts.items() if part}
    return {
        **tables,
        "What was advised": advice_rows(searches),
        "Announced probability of beating the defaults": calibration_rows(searches),
    }


def better_constant(searches: Sequence[TaskSearches]) -> str:
    """Return which of the two constants is better on test."""
    return min(CONSTANTS, key=lambda name: over_tasks(searches, lambda item: item.regret(name, 1, on_test=True)).mean)


def regret_rows(searches: Sequence[TaskSearches]) -> tuple[list[str], list[list[str]]]:
    """Return a line for each method: regret on validation and test, and on test against the better constant and the defaults."""
    columns = ["method", "validation", "test", "test, minus the better constant", "test, minus defaults", "runs"]
    constant = better_constant(searches)
    rows = []
    for label, method, n in shown_methods(searches):

        def regret(item: TaskSearches, method: str = method, n: int = n) -> float:
            return item.regret(method, n, on_test=True)

        test = over_tasks(searches, regret)
        rows.append(
            [
                label,
                f"{over_tasks(searches, lambda item, m=method, n=n: item.regret(m, n, on_test=False)).mean:.3f}",  # type: ignore[misc]
                str(test),
                str(over_tasks(searches, lambda item, r=regret: r(item) - item.regret(constant, 1, on_test=True))),  # type: ignore[misc]
                str(over_tasks(searches, lambda item, r=regret: r(item) - item.regret("default", 1, on_test=True))),  # type: ignore[misc]
                str(test.n),
            ]
        )
    return columns, rows


def advice_rows(searches: Sequence[TaskSearches]) -> tuple[list[str], list[list[str]]]:
    """Return a line for each way of asking our meta-model: abstained, worse than the defaults, cost, near repeats, intervals."""
    columns = ["method", "abstained", "first run worse on both", "seconds against defaults", "near repeats", "80 % intervals hold"]
    rows = []
    for method in _advised_methods(searches):
        items = [item for item in searches if item.runs.get(method)]
        firsts = [item.runs[method][0] for item in items]
        again = [near for item in items for near in _near_repeats(item.task, item.runs[method])]
        costs = [run.seconds / max(item.runs["default"][0].seconds, 1e-9) for item, run in zip(items, firsts, strict=True)]
        held = [inside for item in items for inside in _held(item, method)]
        rows.append(
            [
                method,
                f"{np.mean([run.prediction is None for run in firsts]):.0%}",
                f"{np.mean([item.is_worse(run) for item, run in zip(items, firsts, strict=True)]):.1%}",
                f"{np.mean(costs):.2f}",
                f"{np.mean(again):.0%}" if again else "-",
                f"{np.mean(held):.0%} of {len(held)}" if held else "-",
            ]
        )
    return columns, rows


def calibration_rows(searches: Sequence[TaskSearches]) -> tuple[list[str], list[list[str]]]:
    """Return a line for each bin of announced probabilities of beating the defaults: what was announced, and what came on test."""
    columns = ["method", "announced", "mean announced", "better than the defaults on test", "runs"]
    rows = []
    for method in _advised_methods(searches):
        pairs = [
            (run.prediction.gain_probability, float(run.test > item.runs["default"][0].test))
            for item in searches
            for run in item.runs.get(method, ())[:1]
            if run.prediction is not None and run.prediction.gain_probability is not None
        ]
        for low, high in pairwise(BINS):
            inside = [(announced, came) for announced, came in pairs if low <= announced < high]
            if inside:
                mean, came = np.mean(inside, axis=0)
                rows.append([method, f"{low:.0%} to {min(high, 1.0):.0%}", f"{mean:.2f}", f"{came:.2f}", str(len(inside))])
    return columns, rows


def _advised_methods(searches: Sequence[TaskSearches]) -> list[str]:
    return sorted({method for item in searches for method in item.runs if method.endswith(ADVISED)})


def _near_repeats(task: SmallNet, runs: Sequence[SuiteRun]) -> list[bool]:
    """Return for each run after the first whether it nearly repeats an earlier one."""
    cube = UnitCube({name: next(iter(parse_space({name: given}).values())) for name, given in task.space().items()})
    points = cube.encode([run.config for run in runs])
    return [bool((np.abs(points[:i] - points[i]).max(1) <= NEAR).any()) for i in range(1, len(points))]


def _held(item: TaskSearches, method: str) -> list[bool]:
    """Return for each prediction whether its interval held the value, or its rank among the random runs."""
    sign = -1.0 if item.task.direction == "min" else 1.0
    random = np.array([-math.inf if math.isnan(run.val) else run.val for run in item.runs[RANDOM]])
    held = []
    for run in item.runs[method]:
        expected = run.prediction
        if expected is None or math.isnan(run.val):
            continue
        if expected.unit == Unit.OBJECTIVE:
            held.append(expected.low <= sign * run.val <= expected.high)
        else:
            n_worse = np.sum(random < run.val) + 0.5 * np.sum(random == run.val)
            held.append(bool(expected.low <= (n_worse + 0.5) / (len(random) + 1) <= expected.high))
    return held
