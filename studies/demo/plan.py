"""What the demonstration trains: past tasks, new tasks and the arms they are compared in, as jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.errors import InvalidArgumentError
from studies.demo.report import ADVISED, DEFAULT, FIRST_ADVICE, RANDOM
from studies.demo.runs import DEMO_DEFAULTS, DemoJob, DemoTask, random_config

ALL_FAMILIES = ("mlp", "cnn", "rnn", "transformer")
PAST_DATASETS = ("breast_cancer", "diabetes", "iris", "photos")
NEW_TASKS = (DemoTask("digits", "transformer"), DemoTask("wine", "rnn"))
"""Chosen by how far random configurations differ there: the learning rate matters, and the best of them leave room above.

A fully connected network on wine, for example, reaches the ceiling with a quarter of all configurations.
"""

OWN_RUN = "own run"
"""Arm of the runs a new task collects before it is advised for the second time; not shown."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """How much the demonstration trains.

    Attributes:
        past_tasks: Tasks of the history.
        runs_per_task: Random runs of each; a task counts as a source task from 8 runs on.
        new_tasks: Tasks to be advised, on data sets that no past task has.
        seeds: Seeds of the comparison.
        n_random: Random configurations per new task, each trained with every seed.
        n_own_runs: Runs of its own after which a new task is advised once more; 0 leaves that out.
        epochs: Length of every run.
        workers: Processes.

    Raises:
        InvalidArgumentError: If a new data set occurs in the history, or there is nothing to compare.
    """

    past_tasks: tuple[DemoTask, ...] = tuple(DemoTask(dataset, family) for dataset in PAST_DATASETS for family in ALL_FAMILIES)
    runs_per_task: int = 8
    new_tasks: tuple[DemoTask, ...] = NEW_TASKS
    seeds: tuple[int, ...] = (0, 1, 2)
    n_random: int = 5
    n_own_runs: int = 5
    epochs: int = 8
    workers: int = 2

    def __post_init__(self) -> None:
        """Check that there is something to compare, and that the comparison would be honest."""
        seen = {task.dataset for task in self.past_tasks}
        for task in self.new_tasks:
            if task.dataset in seen:
                raise InvalidArgumentError(
                    f"A new task must have a data set that the history does not have, but got {task.dataset!r}, and the history has: "
                    f"{', '.join(sorted(seen))}. Choose another data set."
                )
        least = {
            "past tasks": (len(self.past_tasks), 1),
            "runs per task": (self.runs_per_task, 1),
            "new tasks": (len(self.new_tasks), 1),
            "seeds": (len(self.seeds), 1),
            "random configurations": (self.n_random, 1),
            "own runs": (self.n_own_runs, 0),
            "epochs": (self.epochs, 1),
            "workers": (self.workers, 1),
        }
        for name, (number, low) in least.items():
            if number < low:
                raise InvalidArgumentError(f"The number of {name} must be at least {low}, but got {number}. Pass {low} or more.")


def past_jobs(plan: DemoPlan, history: Path) -> list[DemoJob]:
    """Random configurations on every past task, shuffled so that every process meets every kind of task."""
    rng = np.random.default_rng(0)
    jobs = [
        DemoJob(task, "past", random_config(rng), int(rng.integers(1000, 1_000_000)), plan.epochs, history)
        for task in plan.past_tasks
        for _ in range(plan.runs_per_task)
    ]
    return [jobs[i] for i in rng.permutation(len(jobs))]


def new_chains(plan: DemoPlan, history: Path, folder: Path) -> list[list[DemoJob]]:
    """Return the arms of every new task.

    Runs without advice are recorded apart, and every advised run sees a copy of the past alone: no recommendation knows any run of its
    data set, except in the chains of own runs, which come first because a chain cannot be shared out.

    Args:
        plan: How much to train.
        history: The past.
        folder: Where the histories of the comparison go.
    """
    rng = np.random.default_rng(1)
    chains: list[list[DemoJob]] = []
    for task in plan.new_tasks if plan.n_own_runs else ():
        own = _copy(folder, task, "own")
        first = DemoJob(task, OWN_RUN, DEMO_DEFAULTS, 100, plan.epochs, own, "explore", history)
        later = [DemoJob(task, OWN_RUN, DEMO_DEFAULTS, 100 + i, plan.epochs, own, "explore") for i in range(1, plan.n_own_runs)]
        chains.append([first, *later])
    for task in plan.new_tasks:
        configs = [random_config(rng) for _ in range(plan.n_random)]
        alone = folder / "unadvised.db"
        for seed in plan.seeds:
            advised = _copy(folder, task, f"seed-{seed}")
            chains.append([DemoJob(task, DEFAULT, DEMO_DEFAULTS, seed, plan.epochs, alone)])
            # An empty history: whatever is recommended comes from the starter history, which has neither of the new data sets.
            chains.append([DemoJob(task, FIRST_ADVICE, DEMO_DEFAULTS, seed, plan.epochs, _copy(folder, task, f"day-one-{seed}"), "best")])
            chains += [[DemoJob(task, RANDOM, config, seed, plan.epochs, alone)] for config in configs]
            chains.append([DemoJob(task, ADVISED, DEMO_DEFAULTS, seed, plan.epochs, advised, "best", history)])
    return chains


def later_jobs(plan: DemoPlan, folder: Path) -> list[DemoJob]:
    """The recommendation once more, each from a copy of the past and the own runs of its task."""
    arm = f"{ADVISED} + {plan.n_own_runs} own run" + ("s" if plan.n_own_runs > 1 else "")
    return [
        DemoJob(task, arm, DEMO_DEFAULTS, seed, plan.epochs, _copy(folder, task, f"later-{seed}"), "best", _copy(folder, task, "own"))
        for task in (plan.new_tasks if plan.n_own_runs else ())
        for seed in plan.seeds
    ]


def _copy(folder: Path, task: DemoTask, purpose: str) -> Path:
    return folder / f"{task.dataset}-{task.family}-{purpose}.db"
