"""What real histories are like: seeded changes of what a replay takes as the past, or of the pools, from any history.

A scenario changes data and nothing else: every method meets it through the same interface, and `metahp` through an ordinary history.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compare_baselines.methods.base import Past, PastTask
from compare_baselines.methods.spaces import UnitCube
from compare_baselines.replay.protocol import FIRST_SEED, Benchmark, Pool
from metamodel.space.dimensions import Dimension, is_number
from store.errors import InvalidArgumentError
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE, aliases_of
from store.names import Direction
from store.records import RunStatus

if TYPE_CHECKING:
    from store import History

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FEWEST_RUNS, MOST_RUNS = 3, 80
N_PEOPLE = 3
"""Favourites in a biased past: one a person, each task is somebody's."""
FAVOURITE_WIDTH = 0.2
"""Standard deviation of biased runs around a favourite, in units of each range."""
ELSEWHERE = 0.1
"""Share of biased runs that were made anywhere."""
SHARE_DIVERGED, SHARE_OOM = 0.09, 0.06
BLUR = 0.05
"""Noise on the edge of the regions that fail, in units of a range."""
FAILING = {RunStatus.DIVERGED: ("learning_rate", "momentum"), RunStatus.OOM: ("hidden_size", PER_DEVICE_BATCH_SIZE, GLOBAL_BATCH_SIZE)}
"""Names whose large values fail, where they exist; else the first numbers of the space."""
DECADES = (2.0, 8.0)
"""How many powers of ten lie between a task's best and worst outcome in ``magnitudes``."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of history.

    Attributes:
        name: As it is asked for.
        about: What it is, one sentence.
        past: Makes the past tasks of a fold and seed; None: as the protocol draws them.
        pools: Changes the pools; None: as recorded.
        needs_curves: Whether it needs the values of each epoch.
        objective: What the objective is called, where its meaning changes.
    """

    name: str
    about: str
    past: Callable[[ScenarioBenchmark, Sequence[str], int], list[PastTask]] | None = None
    pools: Callable[[Benchmark], dict[str, Pool]] | None = None
    needs_curves: bool = False
    objective: str | None = None


@dataclass(frozen=True, eq=False)
class ScenarioBenchmark(Benchmark):
    """A benchmark whose past is another one.

    Attributes:
        scenario: Name of the scenario.
        curves: Task and index in its pool -> steps and oriented values.
    """

    scenario: str = ""
    curves: Mapping[tuple[str, int], tuple[tuple[int, ...], tuple[float, ...]]] = field(default_factory=dict)

    def past(self, names: Sequence[str], seed: int) -> Past:
        """Return what is known before a new task in this scenario."""
        make = find_scenario(self.scenario).past
        tasks = self.drawn(names, seed) if make is None else make(self, names, seed)
        return Past(tuple(tasks), self.space, self.objective, seed)

    def drawn(self, names: Sequence[str], seed: int) -> list[PastTask]:
        """Return the past tasks as the protocol draws them."""
        return [self.past_task(name, chosen) for name, chosen in self.past_runs(names, seed).items()]

    def past_task(self, name: str, chosen: Indices) -> PastTask:
        """Return some runs of a pool as a past task."""
        pool = self.pools[name]
        configs, epochs = tuple(pool.configs[i] for i in chosen), tuple(pool.epochs[i] for i in chosen)
        endings = tuple(pool.endings[i] for i in chosen) if pool.endings else ()
        points, values = self.points[name][chosen], pool.values[chosen]
        return PastTask(name, configs, points, values, pool.direction, epochs, pool.description, endings)

    def rng(self, seed: int) -> np.random.Generator:
        """Return the source of what the scenario draws beside the protocol."""
        return np.random.default_rng([FIRST_SEED + seed, zlib.crc32(self.scenario.encode())])

    def describe(self) -> dict[str, Any]:
        """Return the protocol as it is reported."""
        return {**super().describe(), "scenario": {"name": self.scenario, "about": find_scenario(self.scenario).about}}


def with_scenario(history: History, benchmark: Benchmark, name: str) -> ScenarioBenchmark:
    """Turn a benchmark into one of a scenario.

    Args:
        history: Where the benchmark was read from; curves are read now.
        benchmark: The pools.
        name: One of ``SCENARIOS``.

    Raises:
        InvalidArgumentError: If there is no such scenario, or the history has no curves and it needs them.
    """
    scenario = find_scenario(name)
    pools = benchmark.pools if scenario.pools is None else scenario.pools(benchmark)
    objective = scenario.objective or benchmark.objective
    found = ScenarioBenchmark(pools, benchmark.space, objective, benchmark.protocol, benchmark.notes, name)
    n_past = min(len(past) for past, _ in found.folds())
    if name.startswith("few-") and int(name.removeprefix("few-")) > n_past:
        raise InvalidArgumentError(f"Scenario {name!r} needs as many past tasks, but a fold has only {n_past}. Ask for fewer.")
    return replace(found, curves=_read_curves(history, found, benchmark.objective)) if scenario.needs_curves else found


def find_scenario(name: str) -> Scenario:
    """Return a scenario by name.

    Raises:
        InvalidArgumentError: If there is none of this name.
    """
    if name not in SCENARIOS:
        close = difflib.get_close_matches(name, list(SCENARIOS), n=1, cutoff=0.5)
        nearest = f"did you mean {close[0]!r}? Possible" if close else "possible"
        raise InvalidArgumentError(f"A scenario must be known, but got {name!r}; {nearest} are {', '.join(SCENARIOS)}.")
    return SCENARIOS[name]


def _read_curves(history: History, benchmark: ScenarioBenchmark, objective: str) -> dict[Any, Any]:
    """Read the curves of all runs that any fold and seed takes as the past."""
    wanted = {
        (name, int(i))
        for past, _ in benchmark.folds()
        for seed in range(benchmark.protocol.seeds)
        for name, chosen in benchmark.past_runs(past, seed).items()
        for i in chosen
    }
    curves = {}
    for name, i in sorted(wanted):
        pool = benchmark.pools[name]
        sign = -1.0 if pool.direction == Direction.MIN else 1.0
        found = history.metrics(pool.run_ids[i], objective)
        curves[name, i] = tuple(item.step for item in found), tuple(sign * item.value for item in found)
    if max((len(steps) for steps, _ in curves.values()), default=0) < 2:
        raise InvalidArgumentError(
            f"Scenario {benchmark.scenario!r} needs the values of each epoch, but the history has only one value a run. Import curves with "
            "--step-col, or choose another scenario."
        )
    return curves


def _subsets(benchmark: ScenarioBenchmark, names: Sequence[str], seed: int) -> list[PastTask]:
    """Each task tuned some hyperparameters and left the others at a value: the runs nearest to it, where it is not even recorded or is."""
    rng, cube = benchmark.rng(seed), benchmark.cube
    tasks = []
    for name in sorted(names):
        pool = benchmark.pools[name]
        fixed = rng.choice(cube.names, int(rng.integers(1, max(len(cube.names) // 2, 1) + 1)), replace=False)
        centre = pool.configs[int(rng.integers(len(pool)))]
        part = UnitCube({dim: benchmark.space[dim] for dim in sorted(fixed)})
        distance = np.square(part.encode(pool.configs) - part.encode([centre])).sum(1)
        near = np.argsort(distance, kind="stable")[: benchmark.protocol.n_hist]
        task = benchmark.past_task(name, rng.permutation(near))
        recorded = {dim: centre[dim] for dim in fixed if dim in centre and rng.random() < 0.5}
        configs = tuple({**{key: value for key, value in config.items() if key not in fixed}, **recorded} for config in task.configs)
        spelling = {key: str(rng.choice([key, *aliases_of(key)])) for key in sorted({key for item in configs for key in item})}
        tasks.append(replace(task, configs=configs, points=cube.encode(configs), spelling=spelling))
    return tasks


def _few(n_tasks: int) -> Callable[[ScenarioBenchmark, Sequence[str], int], list[PastTask]]:
    def past(benchmark: ScenarioBenchmark, names: Sequence[str], seed: int) -> list[PastTask]:
        rng = benchmark.rng(seed)
        tasks = []
        for name in sorted(rng.choice(sorted(names), n_tasks, replace=False)):
            n_pool = len(benchmark.pools[name])
            n = round(float(np.exp(rng.uniform(np.log(FEWEST_RUNS), np.log(MOST_RUNS)))))
            tasks.append(benchmark.past_task(str(name), rng.choice(n_pool, min(n, n_pool), replace=False)))
        return tasks

    return past


def _biased(benchmark: ScenarioBenchmark, names: Sequence[str], seed: int) -> list[PastTask]:
    """People search around their favourite values, which they have from anywhere."""
    rng = benchmark.rng(seed)
    some = benchmark.points[sorted(names)[0]]
    favourites = some[rng.choice(len(some), N_PEOPLE, replace=False)]
    tasks = []
    for name in sorted(names):
        points = benchmark.points[name]
        squared = np.square((points - favourites[rng.integers(N_PEOPLE)]) / FAVOURITE_WIDTH).sum(1)
        weight = np.exp(-0.5 * (squared - squared.min()))
        weight = (1 - ELSEWHERE) * weight / weight.sum() + ELSEWHERE / len(points)
        tasks.append(benchmark.past_task(name, rng.choice(len(points), benchmark.protocol.n_hist, replace=False, p=weight)))
    return tasks


def _truncated(benchmark: ScenarioBenchmark, names: Sequence[str], seed: int) -> list[PastTask]:
    """Each run stopped after an epoch drawn evenly from its own."""
    rng = benchmark.rng(seed)
    return [
        _cut(benchmark, name, chosen, [int(rng.integers(len(benchmark.curves[name, int(i)][0]))) for i in chosen], is_interrupted=True)
        for name, chosen in benchmark.past_runs(names, seed).items()
    ]


def _epochs(benchmark: ScenarioBenchmark, names: Sequence[str], seed: int) -> list[PastTask]:
    """Each task was trained for its own number of epochs, as likely one to seven as seven to fifty."""
    rng = benchmark.rng(seed)
    tasks = []
    for name, chosen in benchmark.past_runs(names, seed).items():
        share = float(rng.random())
        lengths = [len(benchmark.curves[name, int(i)][0]) for i in chosen]
        tasks.append(_cut(benchmark, name, chosen, [round(n**share) - 1 for n in lengths], is_interrupted=False))
    return tasks


def _cut(benchmark: ScenarioBenchmark, name: str, chosen: Indices, last: Sequence[int], *, is_interrupted: bool) -> PastTask:
    """Return runs as they stood at an index of their curves."""
    full = [benchmark.curves[name, int(i)] for i in chosen]
    curves = tuple((steps[: j + 1], values[: j + 1]) for (steps, values), j in zip(full, last, strict=True))
    outcomes = np.array([values[-1] for _, values in curves])
    was_cut = [is_interrupted and j + 1 < len(steps) for (steps, _), j in zip(full, last, strict=True)]
    endings = tuple(
        str(RunStatus.DIVERGED if np.isnan(value) else RunStatus.INTERRUPTED if cut else RunStatus.COMPLETED)
        for value, cut in zip(outcomes, was_cut, strict=True)
    )
    epochs = tuple(float(steps[-1]) for steps, _ in curves)
    return replace(benchmark.past_task(name, chosen), outcomes=outcomes, epochs=epochs, endings=endings, curves=curves)


def _mirrored(benchmark: ScenarioBenchmark, names: Sequence[str], seed: int) -> list[PastTask]:
    """Every past task had the outcome of the opposite configuration: consistent, and wrong."""
    tasks = []
    for name, chosen in benchmark.past_runs(names, seed).items():
        task, pool, points = benchmark.past_task(name, chosen), benchmark.pools[name], benchmark.points[name]
        everything = np.ones(len(pool), dtype=bool)
        opposite = [{key: _opposite(dim, config.get(key)) for key, dim in benchmark.space.items()} for config in task.configs]
        found = [benchmark.cube.nearest(config, points, everything) for config in opposite]
        tasks.append(replace(task, outcomes=pool.values[found]))
    return tasks


def _opposite(dim: Dimension, value: Any) -> Any:
    if not dim.is_numeric:
        choices = dim.choices or ()
        return choices[(choices.index(value) + 1) % len(choices)] if value in choices else value
    if not is_number(value):
        return value
    share = 1.0 - dim.scaled(float(value))
    return dim.low * (dim.high / dim.low) ** share if dim.is_log else dim.low + share * (dim.high - dim.low)


def _shuffled(benchmark: ScenarioBenchmark, names: Sequence[str], seed: int) -> list[PastTask]:
    """The outcomes of every past task belong to other runs of it."""
    rng = benchmark.rng(seed)
    return [replace(task, outcomes=rng.permutation(task.outcomes)) for task in benchmark.drawn(names, seed)]


def _failing_pools(benchmark: Benchmark) -> dict[str, Pool]:
    """Large values fail: 9 % of each pool diverge, 6 % run out of memory."""
    rng = np.random.default_rng(zlib.crc32(b"failures"))
    numbers = [name for name, dim in benchmark.space.items() if dim.is_numeric]
    if not numbers:
        raise InvalidArgumentError(
            "Scenario 'failures' needs a hyperparameter that is a number, but there is none. Choose another scenario."
        )
    found = {}
    for name, pool in benchmark.pools.items():
        endings = np.full(len(pool), str(RunStatus.COMPLETED), dtype=object)
        for status, share in ((RunStatus.DIVERGED, SHARE_DIVERGED), (RunStatus.OOM, SHARE_OOM)):
            own = [dim for dim in FAILING[status] if dim in numbers]
            others = numbers if status is RunStatus.DIVERGED else numbers[::-1]
            dims = (own + [dim for dim in others if dim not in own])[:2]
            cube = UnitCube({dim: benchmark.space[dim] for dim in dims})
            height = cube.encode(pool.configs)[:, ::2].sum(1) + BLUR * rng.normal(size=len(pool))
            height[endings != RunStatus.COMPLETED] = -np.inf
            endings[np.argsort(-height, kind="stable")[: round(share * len(pool))]] = str(status)
        values = np.where(endings == RunStatus.COMPLETED, pool.values, np.nan)
        found[name] = replace(pool, values=values, endings=tuple(endings))
    return found


def _wide_pools(benchmark: Benchmark) -> dict[str, Pool]:
    """Every outcome becomes a loss whose logarithm is what it was; regret stays that of the outcome itself."""
    rng = np.random.default_rng(zlib.crc32(b"magnitudes"))
    found = {}
    for name, pool in benchmark.pools.items():
        best, worst = float(pool.filled.max()), float(pool.filled.min())
        decades, lowest = rng.uniform(*DECADES), rng.uniform(-6.0, 2.0)
        loss = 10.0 ** (lowest + decades * (best - pool.values) / (best - worst))
        found[name] = replace(pool, values=-loss, judged=pool.values, direction=str(Direction.MIN))
    return found


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "subsets", "each past task tuned another part of the hyperparameters, under other spellings; the rest stood still", _subsets
        ),
        *(
            Scenario(f"few-{n}", f"{n} past task{'s' if n > 1 else ''} with {FEWEST_RUNS} to {MOST_RUNS} runs each", _few(n))
            for n in (1, 2, 4, 12)
        ),
        Scenario("biased", "past runs lie around one of three people's favourite values, which are no better than others", _biased),
        Scenario("failures", "15 % of all runs fail, 9 % diverged and 6 % out of memory, where values are large", None, _failing_pools),
        Scenario("truncated", "every past run was interrupted at a random epoch", _truncated, None, needs_curves=True),
        Scenario("misleading", "past outcomes are those of the opposite configuration: consistent and wrong", _mirrored),
        Scenario("unrelated", "past outcomes are shuffled within each task: they hold no information", _shuffled),
        Scenario("magnitudes", "a minimised loss that spans 2 to 8 powers of ten a task", None, _wide_pools, objective="loss"),
        Scenario("epochs", "each past task was trained for its own number of epochs, from one to all", _epochs, None, needs_curves=True),
    )
}
"""Every scenario by name."""
