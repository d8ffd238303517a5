"""Carries the suite out: what knows no past first, then our meta-model on day one and with eight tasks of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compare_baselines.live.past import EIGHT_OF
from compare_baselines.live.runner import Settings, run_live
from compare_baselines.live.small_nets.task import SUITE, VARIANTS, suite_tasks
from compare_baselines.live.tasks import SUITES
from compare_baselines.methods.registry import RANDOM
from metahp_report.comparison.records import CONTROLS
from metamodel.kinds import DEFAULT as OURS
from store import History
from store.errors import InvalidArgumentError

WITHOUT_PAST, DAY_ONE, OWN_TASKS = f"{SUITE} controls", f"{SUITE} day one", f"{SUITE} own tasks"
"""Names of the comparisons that a suite consists of."""
RANDOM_RUNS, SEARCH_RUNS = 16, 8
SEARCHED = f"{SUITE} searchers"
SEARCHERS = ("tpe", "gp")


@dataclass(frozen=True, slots=True)
class SuiteSettings:
    """What of the suite is carried out.

    Attributes:
        half: ``development``, ``held-out`` or ``all``.
        variants: Some of ``VARIANTS``.
        seeds: Number of seeds.
        size: ``tiny`` for a trial, ``small`` for the figures.
        jobs: Processes side by side.
        methods: Which of ``controls``, ``searchers`` and ``ours``.
    """

    half: str = "all"
    variants: tuple[str, ...] = VARIANTS
    seeds: int = 3
    size: str = "small"
    jobs: int = 1
    methods: tuple[str, ...] = ("controls", "searchers", "ours")


def check_suite(name: str) -> str:
    """Return the name of a suite checked.

    Raises:
        InvalidArgumentError: If there is no such suite.
    """
    if name not in SUITES:
        raise InvalidArgumentError(f"A suite must be known, but got {name!r}; possible are {', '.join(SUITES)}.")
    return name


def run_suite(
    history: History | str | os.PathLike[str] | None,
    settings: SuiteSettings,
    *,
    progress: Callable[[float, str], None] | None = None,
    remark: Callable[[str], None] | None = None,
) -> None:
    """Carry the suite out, or go on with it; everything is recorded as runs.

    Args:
        history: Where it is recorded: a history, its path, or None for the default one.
        settings: What of it.
        progress: Called with a fraction in [0, 1] and a text.
        remark: Called with each remark.

    Raises:
        InvalidArgumentError: If the settings are not possible.
    """
    tasks = suite_tasks(settings.half, settings.variants)

    def compare(name: str, methods: Sequence[str], budget: int, past: str = "auto") -> None:
        asked = Settings(tasks, tuple(methods), budget, settings.seeds, settings.size, jobs=settings.jobs, past=past, comparison=name)
        run_live(history, asked, progress=progress, remark=remark)

    if "controls" in settings.methods:
        compare(WITHOUT_PAST, (*CONTROLS, RANDOM), RANDOM_RUNS)
    if "searchers" in settings.methods:
        compare(SEARCHED, SEARCHERS, SEARCH_RUNS)
    if "ours" in settings.methods:
        compare(DAY_ONE, (OURS,), SEARCH_RUNS, "starter")
        compare(OWN_TASKS, (OURS,), SEARCH_RUNS, f"{EIGHT_OF}{WITHOUT_PAST}")
