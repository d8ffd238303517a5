"""The live tasks, one module each."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from store.errors import InvalidArgumentError

if TYPE_CHECKING:
    from compare_baselines.live.tasks.base import LiveTask

LIVE_TASKS = {
    "text": "compare_baselines.live.tasks.text:Text",
    "image": "compare_baselines.live.tasks.image:Image",
    "tabular": "compare_baselines.live.tasks.tabular:Tabular",
    "series": "compare_baselines.live.tasks.series:SeriesTask",
    "cnn": "compare_baselines.live.tasks.families:CNNTask",
    "rnn": "compare_baselines.live.tasks.families:RNNTask",
    "transformer": "compare_baselines.live.tasks.families:TransformerTask",
    "regression": "compare_baselines.live.tasks.families:RegressionTask",
}
"""Name -> ``module:Class``."""


SUITES = {"small-nets": "compare_baselines.live.small_nets.task:SmallNet"}
"""Name -> ``module:Class`` of a task of the suite, made with its name ``<suite>/<task>``."""


def is_live_task(name: str) -> bool:
    """Say whether a name is that of a live task."""
    return name in LIVE_TASKS or name.partition("/")[0] in SUITES


def find_task(name: str) -> LiveTask:
    """Return a task by its name.

    Raises:
        InvalidArgumentError: If there is no such task.
    """
    suite = name.partition("/")[0]
    if suite in SUITES:
        module, _, attribute = SUITES[suite].partition(":")
        of_suite: LiveTask = getattr(import_module(module), attribute)(name)
        return of_suite
    if name not in LIVE_TASKS:
        close = difflib.get_close_matches(name, list(LIVE_TASKS), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? Possible" if close else "possible"
        raise InvalidArgumentError(f"A task must be known, but got {name!r}; {hint} are {', '.join(LIVE_TASKS)}.")
    module, _, attribute = LIVE_TASKS[name].partition(":")
    task: LiveTask = getattr(import_module(module), attribute)()
    return task


def find_tasks(names: Sequence[str]) -> list[LiveTask]:
    """Return tasks by their names.

    Raises:
        InvalidArgumentError: If one does not exist, or is named twice, or there is none.
    """
    if not names or len(set(names)) < len(names):
        raise InvalidArgumentError(
            f"Tasks must be named, each once, but got {', '.join(names) or 'none'}. Possible are {', '.join(LIVE_TASKS)}."
        )
    return [find_task(name) for name in names]
