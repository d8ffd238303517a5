"""Carries a live comparison out: plans it in the history, and hands the searches to processes or to a Ray cluster."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from compare_baselines.environment import ONE_THREAD, environment
from compare_baselines.live.data import FILES, data_file
from compare_baselines.live.past import PastSource, check_past, choose_past, describe_past
from compare_baselines.live.search import SearchJob, carry_out
from compare_baselines.live.tasks import find_tasks
from compare_baselines.live.tasks.base import LiveTask, check_size
from compare_baselines.methods.registry import LIVE_METHODS, find_live_method, uses_past
from metahp_report.comparison.reader import PLANS, StoredPlan, read_comparison, read_plans
from metahp_report.comparison.records import KEY, ComparisonPlan, ComparisonResult
from metamodel.data.opened_history import opened_history
from store import History
from store.errors import InvalidArgumentError, StorageError
from store.ids import new_id, utc_now
from store.switches import is_off

PLAN_FRAMEWORK = KEY
_NEEDS = {"text": "imdb", "image": "cifar10", "tabular": "titanic", "series": "electricity", "rnn": "electricity"}
"""Task -> the data set it needs; the others come with scikit-learn."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked for.

    Attributes:
        tasks: Names of the tasks.
        methods: Names of the methods.
        budget: Evaluations of each search.
        seeds: Number of seeds.
        size: ``tiny``, ``small`` or ``full``.
        max_seconds: Seconds after which a search starts no further evaluation.
        jobs: Processes side by side.
        data_dir: Folder with the data; None for the hub.
        ray: ``local`` or the address of a Ray cluster; None for processes.
        past: Where the meta-models' history comes from: ``auto``, ``history``, ``starter`` or ``tasks``.
        has_own_history: Whether the user named the history.
        comparison: Id of a comparison to make or to go on with; None: go on with an unfinished one of the same plan, else a new one.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    budget: int = 4
    seeds: int = 1
    size: str = "tiny"
    max_seconds: float | None = None
    jobs: int = 1
    data_dir: Path | None = None
    ray: str | None = None
    past: str = "auto"
    has_own_history: bool = False
    comparison: str | None = None


def run_live(
    history: History | str | os.PathLike[str] | None,
    settings: Settings,
    *,
    progress: Callable[[float, str], None] | None = None,
    remark: Callable[[str], None] | None = None,
) -> ComparisonResult:
    """Make a live comparison, or go on with one that was interrupted.

    Args:
        history: Where it is recorded: a history, its path, or None for the default one.
        settings: What is compared.
        progress: Called with a fraction in [0, 1] and a text.
        remark: Called with each remark, e.g. where the meta-models' history comes from.

    Returns:
        The result, read back from the history.

    Raises:
        InvalidArgumentError: If the settings are not possible, or the data is not there.
        MissingDependencyError: If Ray is asked for and not installed.
    """
    remark = remark or (lambda text: None)
    tasks = _check(settings)
    with opened_history(history) as opened:
        stored = _planned(opened, settings, tasks, remark)
        past = choose_past(stored.plan.past, opened, True, stored.id, stored.created_utc, stored.plan.methods)
        searches = _open_searches(opened, stored, settings, past)
        remark(f"Comparison {stored.id} in {opened.path}: {len(searches)} of {_n_searches(stored.plan)} searches to do.")
        if any(uses_past(name) for name in stored.plan.methods):
            remark(f"The meta-models learn from {stored.plan.origin}.")
        _carry_out_all(searches, settings, progress or (lambda share, text: None))
        return read_comparison(opened, stored.id)


def _check(settings: Settings) -> list[LiveTask]:
    check_size(settings.size)
    for name, number in (("budget", settings.budget), ("seeds", settings.seeds), ("jobs", settings.jobs)):
        if number < 1:
            raise InvalidArgumentError(f"The number of {name} must be at least 1, but got {number}.")
    if settings.max_seconds is not None and settings.max_seconds <= 0:
        raise InvalidArgumentError(
            f"The seconds of a search must be positive, but got {settings.max_seconds}. Leave them out for no limit."
        )
    if is_off():
        raise InvalidArgumentError("A comparison records every run, but METAHP=off switches recording off. Unset it.")
    if not settings.methods or len(set(settings.methods)) < len(settings.methods):
        raise InvalidArgumentError(
            f"Methods must be named, each once, but got {', '.join(settings.methods) or 'none'}. Possible are {', '.join(LIVE_METHODS)}."
        )
    for name in settings.methods:
        find_live_method(name)
    tasks = find_tasks(settings.tasks)
    if settings.data_dir is not None:
        for dataset in {_NEEDS[task.name] for task in tasks if task.name in _NEEDS}:
            data_file(settings.data_dir, dataset)
    return tasks


def _planned(history: History, settings: Settings, tasks: Sequence[LiveTask], remark: Callable[[str], None]) -> StoredPlan:
    """Return the comparison to go on with, its plan widened by what is asked for now; or a new one, written into the history."""
    known = _same(history, settings)
    if known is not None:
        settings = replace(
            settings,
            tasks=_union(known.plan.tasks, settings.tasks),
            methods=_union(known.plan.methods, settings.methods),
            past=known.plan.past,
        )
        tasks = find_tasks(settings.tasks)
    created_utc = utc_now() if known is None else known.created_utc
    identity = settings.comparison or new_id() if known is None else known.id
    if known is not None:
        remark(f"Going on with comparison {identity}.")
    past = choose_past(settings.past, history, settings.has_own_history or known is not None, identity, created_utc, settings.methods)
    check_past(past, tasks, settings.methods)
    plan = ComparisonPlan(
        tasks=settings.tasks,
        methods=settings.methods,
        budget=settings.budget,
        seeds=settings.seeds,
        size=settings.size,
        max_seconds=settings.max_seconds,
        jobs=settings.jobs,
        past=past.kind,
        origin=describe_past(past, tasks, settings.methods),
        data=f"local files: {', '.join(FILES.values())}" if settings.data_dir is not None else "the Hugging Face hub",
        hardware=hardware(),
    )
    infos = {task.name: task.info() for task in tasks}
    names = {task.name: task.history_name(plan.size) for task in tasks}
    if known is None or known.plan != plan:
        notes = {name: {**asdict(info), "metrics": list(info.metrics)} for name, info in infos.items()}
        note = {"id": identity, "plan": plan.to_dict(), "tasks": notes, "names": names}
        history.start_run(task=PLANS, framework=PLAN_FRAMEWORK, description={KEY: note}).finish()
    return StoredPlan(identity, created_utc, plan, infos, names)


def _same(history: History, settings: Settings) -> StoredPlan | None:
    """Return the comparison that these settings go on with."""
    plans = read_plans(history)
    if settings.comparison is not None:
        known = next((item for item in plans if item.id == settings.comparison), None)
        if known is not None and known.plan.size != settings.size:
            raise InvalidArgumentError(
                f"A comparison has one size, but {known.id} is {known.plan.size} and --size is {settings.size}. Pass --size "
                f"{known.plan.size}, or another --comparison."
            )
        return known
    asked = (settings.tasks, settings.methods, settings.budget, settings.seeds, settings.size, settings.max_seconds)
    for item in reversed(plans):
        plan = item.plan
        if (plan.tasks, plan.methods, plan.budget, plan.seeds, plan.size, plan.max_seconds) == asked:
            return None if read_comparison(history, item.id).is_complete else item
    return None


def _union(known: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*known, *new]))


def _n_searches(plan: ComparisonPlan) -> int:
    return len(plan.tasks) * len(plan.methods) * plan.seeds


def _open_searches(history: History, stored: StoredPlan, settings: Settings, past: PastSource) -> list[SearchJob]:
    """Return the searches that are not at their end, those that need a past last, the longest tasks first."""
    plan, result = stored.plan, read_comparison(history, stored.id)
    # More threads only slow small matrices down.
    threads = max(1, (os.cpu_count() or 1) // settings.jobs) if plan.size == "full" else 1
    found = []
    for method in sorted(plan.methods, key=uses_past):
        for task in plan.tasks:
            for seed in range(plan.seeds):
                search = result.search(task, method, seed)
                if search is None or not search.is_complete:
                    folder = None if settings.data_dir is None else settings.data_dir.resolve()
                    found.append(SearchJob(history.path, stored.id, plan, task, method, seed, past, folder, threads))
    return found


def _carry_out_all(searches: Sequence[SearchJob], settings: Settings, progress: Callable[[float, str], None]) -> None:
    """Carry the searches out: where the other tasks are the past, those that learn from them wait for all others."""
    n_done = 0
    waits = bool(searches) and searches[0].past.kind == "tasks"
    phases = (
        [[search for search in searches if uses_past(search.method) is is_second] for is_second in (False, True)] if waits else [searches]
    )
    with _executor(settings) as carry:
        for phase in phases:
            for search in carry(phase):
                n_done += 1
                progress(n_done / len(searches), f"{search.label} ({n_done} of {len(searches)})")


Carry = Callable[[Sequence[SearchJob]], Iterator[SearchJob]]


@contextmanager
def _executor(settings: Settings) -> Iterator[Carry]:
    """Yield a function that carries searches out, in any order, and yields each when it is done."""
    if settings.ray is not None:
        from compare_baselines.live.cluster import ray_cluster

        with ray_cluster(settings.ray, settings.jobs) as carry:
            yield carry
    elif settings.jobs == 1:
        yield _in_this_process
    else:
        with environment(ONE_THREAD):  # outside torch, which has its own setting
            yield lambda searches: _in_processes(searches, settings.jobs)


def _in_this_process(searches: Sequence[SearchJob]) -> Iterator[SearchJob]:
    for search in searches:
        carry_out(search)
        yield search


def _in_processes(searches: Sequence[SearchJob], jobs: int) -> Iterator[SearchJob]:
    """Carry searches out in processes; where one dies, those that did not finish are tried again, as long as that leads anywhere."""
    waiting = list(searches)
    n_rows = -1
    while waiting:
        n_before, n_rows = n_rows, _n_rows(waiting[0])
        if n_rows == n_before:
            raise StorageError(f"Processes must survive their start, but they died before {waiting[0].label} began. Try --jobs 1.")
        # spawn: a forked child would inherit torch's threads and the history's open connections.
        with ProcessPoolExecutor(min(jobs, len(waiting)), get_context("spawn")) as pool:
            futures = {pool.submit(carry_out, search): search for search in waiting}
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                    except BrokenProcessPool:
                        continue
                    waiting.remove(futures[future])
                    yield futures[future]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _n_rows(search: SearchJob) -> int:
    """Return how many runs the history has: a process that died in an evaluation has left one."""
    with History(search.history, create=False) as history:
        return sum(item.n_runs for item in history.tasks())


def hardware() -> str:
    """Return what this machine is, in words."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {os.cpu_count()} CPU cores"
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU"
