"""The learning table of a history, read once: what has not changed since is taken from this process, or from a file next to the models.

A process that starts a training needs what all earlier runs say. Each task of the table is kept in ``<history>.models/tasks.cache`` for as
long as none of its runs changes; what did change is read from the history.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metamodel.data.observations import MAX_UNLOGGED, LearningTable, TaskRuns, build_table
from metamodel.data.task import TaskDescription
from metamodel.space.run_configs import ConfigColumns
from store.learning_columns import LearningRun, learning_runs
from store.metric_hints import usable_metrics
from store.names import Direction
from store.sqlite.cache import (
    DAMAGED,
    MIN_CACHED_RUNS,
    WORTH_WRITING,
    from_columns,
    origin_of_history,
    packed,
    read_cache,
    to_columns,
    unpacked,
    write_cache,
)
from store.values import decode_value, encode_value

if TYPE_CHECKING:
    from store import History
    from store.records import TaskRecord

logger = logging.getLogger(__name__)

CACHE_FILE = "tasks.cache"
TABLE_FORMAT = 6
"""Version of the file; to be raised when ``build_table`` makes something else of the same runs."""

_KEPT_TABLES = 4

_Parts = dict[str, tuple[tuple[str, str], LearningTable]]
"""Task id -> what its part of the table depends on, and the part."""

_cache: OrderedDict[tuple[Path, str], LearningTable] = OrderedDict()
_parts: OrderedDict[Path, _Parts] = OrderedDict()


def learning_table(history: History) -> LearningTable:
    """Read what a history offers for learning; cached until a finished run comes in or a task is merged.

    Then only the tasks that changed are read again: in a long search every new run asks for a new table.
    """
    path = Path(history.path)
    n_finished, state = history.state()
    key = (path, state)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    records = {task.id: task for task in history.tasks()}
    keys = {task_id: (state, _key_of(records.get(task_id))) for task_id, state in history.task_states().items()}
    origin = origin_of_history(history) if n_finished >= MIN_CACHED_RUNS else None
    file = history.models_path / CACHE_FILE
    before = _parts.get(path)
    if before is None:
        before = {} if origin is None else _read_parts(file, origin)
    parts = {task_id: before[task_id] for task_id, part_key in keys.items() if task_id in before and before[task_id][0] == part_key}
    changed: dict[str, list[LearningRun]] = {task_id: [] for task_id in keys if task_id not in parts}
    for run in learning_runs(history, None if len(changed) == len(keys) else list(changed)) if changed else ():
        if run.task_id in changed:  # else a run whose task is newer than what was asked above
            changed[run.task_id].append(run)
    parts |= {task_id: (keys[task_id], build_table(runs, records)) for task_id, runs in changed.items()}
    if origin is not None and path not in _parts and _n_new(before, parts, changed) > WORTH_WRITING * n_finished:
        _write_parts(file, origin, parts)
    return _remembered(history, key, parts)


def _remembered(history: History, key: tuple[Path, str], parts: _Parts) -> LearningTable:
    table = with_logged_names(history, _joined({task_id: part for task_id, (_, part) in parts.items()}))
    _cache[key], _parts[key[0]] = table, parts
    _parts.move_to_end(key[0])
    while len(_cache) > _KEPT_TABLES:
        _cache.popitem(last=False)
    while len(_parts) > _KEPT_TABLES:
        _parts.popitem(last=False)
    return table


def with_logged_names(history: History, table: LearningTable) -> LearningTable:
    """Look up what the runs without an outcome logged instead."""
    if not table.unlogged:
        return table
    logged = {name for run_id in table.unlogged for name in history.metric_names(run_id)}
    return replace(table, logged_names=tuple(usable_metrics(logged)))


def _key_of(record: TaskRecord | None) -> str:
    """Return what a learning task takes from the record of its task."""
    return "" if record is None else repr((record.name, record.description))


def _joined(by_task: Mapping[str, LearningTable]) -> LearningTable:
    """Put the tables of single tasks together."""
    parts = by_task.values()
    tasks = sorted((task for part in parts for task in part.tasks), key=lambda task: (task.task_id, task.objective))
    left_out: Counter[str] = Counter()
    for part in parts:
        left_out.update(part.left_out)
    unlogged = sorted(run_id for part in parts for run_id in part.unlogged)[-MAX_UNLOGGED:]
    n_finished = sum(part.n_finished for part in parts)
    return LearningTable(tuple(tasks), dict(left_out), n_finished, tuple(unlogged), by_task=by_task)


def _n_new(before: _Parts, parts: _Parts, changed: Mapping[str, object]) -> int:
    """Count the runs for whose sake the file is to be written anew.

    Of a task that only grew, the runs it grew by: it will have grown again by the next start, however large it is.
    """
    new = 0
    for task_id in changed:
        n, n_before = _size(parts[task_id][1]), _size(before[task_id][1]) if task_id in before else 0
        new += n - n_before if n > n_before else n
    return new


def _size(part: LearningTable) -> int:
    return sum(map(len, part.tasks)) + sum(part.left_out.values())


def _write_parts(path: Path, origin: str, parts: _Parts) -> None:
    content = {
        task_id: {
            "key": key,
            "left_out": part.left_out,
            "n_finished": part.n_finished,
            "unlogged": part.unlogged,
            "tasks": [_coded_task(task) for task in part.tasks],
        }
        for task_id, (key, part) in parts.items()
    }
    write_cache(path, TABLE_FORMAT, origin, {"parts": content})


def _read_parts(path: Path, origin: str) -> _Parts:
    content = read_cache(path, TABLE_FORMAT, origin)
    if content is None:
        return {}
    try:
        return {
            task_id: (
                (part["key"][0], part["key"][1]),
                LearningTable(
                    tuple(_decoded_task(task) for task in part["tasks"]), part["left_out"], part["n_finished"], tuple(part["unlogged"])
                ),
            )
            for task_id, part in content["parts"].items()
        }
    except DAMAGED as error:
        logger.debug("The cache %s is damaged and is made anew: %s", path, error)
        return {}


def _coded_task(task: TaskRuns) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "name": task.name,
        "objective": task.objective,
        "direction": str(task.direction),
        "description": encode_value(task.description.to_dict()),
        "run_ids": task.run_ids,
        "configs": to_columns(task.configs),
        "values": packed(task.values.tolist()),
        "diverged": np.flatnonzero(task.is_diverged).tolist(),
        "oom": np.flatnonzero(task.is_oom).tolist(),
        "variants": task.variants if len(set(task.variants)) > 1 else task.variants[:1],
        "task_order": task.task_order,
        "definitions": task.definitions if len(set(task.definitions)) > 1 else task.definitions[:1],
        "epochs": packed(task.epochs.tolist()),
        "final": np.flatnonzero(task.is_final).tolist(),
    }


def _decoded_task(content: Mapping[str, Any]) -> TaskRuns:
    run_ids, values = tuple(content["run_ids"]), np.array(unpacked(content["values"]), dtype=np.float64)
    configs, variants = ConfigColumns(*from_columns(content["configs"])), tuple(content["variants"])
    variants = variants * len(run_ids) if len(variants) == 1 else variants
    definitions, epochs = tuple(content["definitions"]), np.array(unpacked(content["epochs"]), dtype=np.float64)
    definitions = definitions * len(run_ids) if len(definitions) == 1 else definitions
    if not len(run_ids) == len(values) == len(configs) == len(variants) == len(definitions) == len(epochs):
        raise ValueError(f"a task has {len(run_ids)} runs, but {len(values)} values and {len(configs)} configurations")
    return TaskRuns(
        content["task_id"],
        content["name"],
        content["objective"],
        Direction(content["direction"]),
        TaskDescription.from_dict(decode_value(content["description"])),
        run_ids,
        configs,
        values,
        _marked(content["diverged"], len(run_ids)),
        _marked(content["oom"], len(run_ids)),
        variants,
        content["task_order"],
        definitions,
        epochs,
        _marked(content["final"], len(run_ids)),
    )


def _marked(indices: list[int], n: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    marked = np.zeros(n, dtype=bool)
    marked[indices] = True
    return marked
