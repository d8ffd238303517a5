"""Maps the names, units and directions of a source to those of the history. What is ambiguous is a question, never a guess.

A name is recognised by its common spelling, a share as percent if all its values are above 1, a batch size as per device if the runs had
one device each. Nothing is imported while a question is open; each names the option that answers it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from store.errors import InvalidArgumentError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, NAMES, PER_DEVICE_BATCH_SIZE
from store.importers.endings import check_unfinished
from store.importers.foreign import ForeignRun, number_of
from store.names import canonical_name, infer_direction, natural_bounds

UNITS = ("percent", "fraction", "keep")
BATCHES = ("per-device", "global")
OUTCOMES = ("best", "last")
SHARES = frozenset({"dropout", "warmup_ratio", "label_smoothing", "label_smoothing_factor"})
"""Hyperparameters that are a share: above 1 they are percent, or no share."""
_DEVICES = ("num_devices", "n_devices", "devices", "n_gpu", "n_gpus", "num_gpus", "gpus", "world_size", "num_processes")
_PERCENT_WORDS = ("percent", "pct", "%")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user sets for an import; it comes before what the source gives.

    Attributes:
        task: One task for all runs.
        objective: Metric that decides.
        direction: ``min`` or ``max``.
        names: Raw name -> canonical name, for spellings that are not common.
        units: Raw name of a metric or hyperparameter -> ``percent``, ``fraction`` or ``keep`` (not converted).
        batch: ``per-device`` or ``global``: which batch size the source has, where several devices or accumulation make them differ.
        unfinished: ``skip``, ``interrupted`` or ``failed``: what becomes of runs that did not end.
        outcome: ``best`` or ``last`` value of the objective's curve; None: what the tool gives as the outcome, else the best.
        objectives: Task -> its objective; the import takes them from ``objective`` where that is written as ``TASK=METRIC,...``.

    Raises:
        InvalidArgumentError: If a unit, ``batch``, ``unfinished`` or ``outcome`` is none of these.
    """

    task: str | None = None
    objective: str | None = None
    direction: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    batch: str | None = None
    unfinished: str = "skip"
    outcome: str | None = None
    objectives: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the closed sets."""
        for name, unit in self.units.items():
            if unit not in UNITS:
                raise InvalidArgumentError(f"A unit must be {', '.join(UNITS[:-1])} or {UNITS[-1]}, but got {unit!r} for {name!r}.")
        if self.batch is not None and self.batch not in BATCHES:
            raise InvalidArgumentError(f"A batch size must be {' or '.join(BATCHES)}, but got {self.batch!r}. Pass one of the two.")
        if self.outcome is not None and self.outcome not in OUTCOMES:
            raise InvalidArgumentError(f"An outcome must be {' or '.join(OUTCOMES)}, but got {self.outcome!r}. Pass one of the two.")
        check_unfinished(self.unfinished)


@dataclass(frozen=True, slots=True)
class NameMapping:
    """How one name of the source is read.

    Attributes:
        kind: ``hyperparameter``, ``batch size``, or of which task it is the ``objective`` or its ``unit``.
        name: The source's name.
        becomes: The name in the history.
        meaning: Direction and unit of a metric, the range of a hyperparameter.
        because: Why.
        n_runs: Runs that have it.
    """

    kind: str
    name: str
    becomes: str
    meaning: str
    because: str
    n_runs: int


@dataclass(slots=True)
class SourceMapping:
    """How a source is read; filled while its runs are looked at.

    Attributes:
        options: What the user set.
        names: One entry for each name.
        questions: What is ambiguous, each with the option that answers it.
        notes: What was converted.
        scales: Raw name of a hyperparameter -> factor it is multiplied by.
        batch: ``per-device``, ``global``, or None where both are the same.
    """

    options: ImportOptions = field(default_factory=ImportOptions)
    names: list[NameMapping] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    batch: str | None = None


def stored_names(hparams: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return raw name -> stored name so that no two share one: first those set by the user, then canonical spellings, then aliases."""
    taken: set[str] = set()
    result: dict[str, str] = {}
    listed = list(hparams)
    for raw in sorted(listed, key=lambda raw: (raw not in names, raw != canonical_name(raw))):
        name = names.get(raw, canonical_name(raw))
        result[raw] = raw if name in taken else name
        taken.add(result[raw])
    return {raw: result[raw] for raw in listed}


def map_hyperparameters(runs: Sequence[ForeignRun], options: ImportOptions) -> SourceMapping:
    """Map the hyperparameters of a source.

    Raises:
        InvalidArgumentError: If ``options.names`` has one that no run has.
    """
    mapping = SourceMapping(options)
    seen: dict[str, list[Any]] = {}
    for run in runs:
        for name, value in run.hparams.items():
            seen.setdefault(name, []).append(value)
    unknown = [name for name in options.names if name not in seen]
    if unknown:
        raise InvalidArgumentError(
            f"A hyperparameter to rename must be in the source, but it has no {unknown[0]!r}; it has: {shortened(seen) or 'none'}."
        )
    names = stored_names(seen, options.names)
    mapping.batch = _map_batch(runs, mapping)
    for raw, values in seen.items():
        name = names[raw]
        numbers = [number for number in map(number_of, values) if number is not None and math.isfinite(number)]
        because = _why(raw, name, options)
        if name in SHARES and numbers and max(numbers) > 1:
            because = _map_share(raw, numbers, mapping) or because
        if name == PER_DEVICE_BATCH_SIZE and mapping.batch == "global":
            name, because = GLOBAL_BATCH_SIZE, "set by you"
        mapping.names.append(NameMapping("hyperparameter", raw, name, _range(values, numbers), because, len(values)))
    return mapping


def _why(raw: str, name: str, options: ImportOptions) -> str:
    if raw in options.names:
        return "set by you"
    if name != canonical_name(raw):
        return f"{canonical_name(raw)} is there too"
    if name == raw and name not in NAMES:
        part = canonical_name(re.split(r"[./]", raw)[-1])
        if part != raw and part in NAMES:
            return f"part of a longer name: kept; --name {raw}={part} if it is that"
        return "no common name is known: kept"
    if name == raw:
        return "its canonical name"
    return "a known spelling"


def _range(values: Sequence[Any], numbers: Sequence[float]) -> str:
    if numbers and len(numbers) >= len(values) / 2:
        low, high = min(numbers), max(numbers)
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    words = list(dict.fromkeys(str(value)[:24] for value in values))
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _map_share(raw: str, numbers: Sequence[float], mapping: SourceMapping) -> str | None:
    unit = mapping.options.units.get(raw)
    if unit is None:
        mapping.questions.append(
            f"{raw!r} is a share, but holds {max(numbers):g}: pass --unit {raw}=percent if 50 means a half, or --unit {raw}=keep"
        )
    elif unit == "percent":
        mapping.scales[raw] = 0.01
        mapping.notes.append(f"{raw!r} was percent and is stored as a fraction")
    return None if unit is None else f"set by you: {unit}"


def n_devices_of(run: ForeignRun) -> int | None:
    """Return how many devices a run trained on, None if unknown."""
    if run.n_devices is not None:
        return run.n_devices
    for name, value in run.hparams.items():
        if name.lower().replace("-", "_").rpartition(".")[2] in _DEVICES:
            number = number_of(value)
            if number is not None and number >= 1 and number.is_integer():
                return int(number)
    return None


def accumulation_of(run: ForeignRun) -> int:
    """Return the gradient accumulation steps of a run, 1 if unknown."""
    values = [number_of(value) for name, value in run.hparams.items() if canonical_name(name) == ACCUMULATION]
    return int(values[0]) if values and values[0] is not None and 1 <= values[0] < 1e9 else 1


def _map_batch(runs: Sequence[ForeignRun], mapping: SourceMapping) -> str | None:
    """Return whether batch sizes are per device or global; None where both are the same."""
    options = mapping.options
    names = stored_names(dict.fromkeys(name for run in runs for name in run.hparams), options.names)
    raws = [raw for raw, name in names.items() if name == PER_DEVICE_BATCH_SIZE]
    if not raws:
        return None
    having = [run for run in runs if raws[0] in run.hparams]
    several = [run for run in having if (n_devices_of(run) or 1) * accumulation_of(run) > 1]
    stated = {run.batch for run in having}
    if options.batch is not None:
        answer, because = options.batch, "set by you"
    elif stated == {"per-device"} or raws[0].lower().startswith("per_device"):
        answer, because = "per-device", "from the format" if stated == {"per-device"} else "from its name"
    elif not several:
        answer, because = "", "one device, no accumulation: both are the same"
    else:
        answer, because = "", "open"
        most = max((n_devices_of(run) or 1) * accumulation_of(run) for run in several)
        mapping.questions.append(
            f"{raws[0]!r} may be per device or global, and {len(several)} runs used up to {most} devices x accumulation steps: "
            "pass --batch per-device or --batch global"
        )
    mapping.names.append(NameMapping("batch size", raws[0], answer or "per device or global", "", because, len(having)))
    return answer or None


def with_objectives(options: ImportOptions, runs: Sequence[ForeignRun]) -> ImportOptions:
    """Return options with the objective of each task, where it was written as ``TASK=METRIC,...``; a bare metric is that of the others.

    Raises:
        InvalidArgumentError: If no run has such a metric, or the source has no such task.
    """
    tasks: dict[str, dict[str, None]] = {}
    for run in runs:
        tasks.setdefault(run.task, {}).update(dict.fromkeys(metrics_of(run)))
    logged = {name: None for names in tasks.values() for name in names}
    given = options.objective
    if given is None or given in logged or not logged:
        return options
    if "=" not in given:
        raise _unknown_metric(given, logged)
    found: dict[str, str] = {}
    rest: str | None = None
    for part in filter(None, map(str.strip, given.split(","))):
        splits = [(part[:place], part[place + 1 :]) for place, letter in enumerate(part) if letter == "="]
        task, metric = next((split for split in splits if split[0] in tasks), (None, part))
        if task is None:
            rest = metric
            if splits and metric not in logged:
                raise InvalidArgumentError(
                    f"An objective must be given as TASK=METRIC for a task of the source, but got {part!r}; its tasks are: "
                    f"{', '.join(map(repr, tasks))}."
                )
        else:
            found[task] = metric
        if metric not in (logged if task is None else tasks[task]):
            raise _unknown_metric(metric, logged if task is None else tasks[task])
    return replace(options, objective=rest, objectives=found)


def metrics_of(run: ForeignRun) -> list[str]:
    """Return the names of all metrics of a run, also of those whose values are not kept."""
    return [*run.curves, *run.more_metrics]


def _unknown_metric(given: str, logged: Iterable[str]) -> InvalidArgumentError:
    close = difflib.get_close_matches(given, list(logged), 1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return InvalidArgumentError(
        f"An objective must be a metric that was recorded, but there is no {given!r}; recorded were: {', '.join(logged)}.{meant}"
    )


def map_objective(task: str, runs: Sequence[ForeignRun], mapping: SourceMapping) -> tuple[str, str] | str | None:
    """Return the objective of a task and its direction; the reason to leave its runs out; or None where it is a question.

    Args:
        task: Its name.
        runs: The runs of the task.
        mapping: Receives the entry and the questions.
    """
    options = mapping.options
    logged = Counter(name for run in runs for name in metrics_of(run))
    stated = Counter(run.objective for run in runs if run.objective is not None)
    given = options.objectives.get(task, options.objective)
    if given is not None:
        objective, because = given, "set by you"
        if not logged[objective] and logged:
            return f"has no {objective!r}: task {task!r} has {_counted(logged)}; --objective {task}=METRIC imports it too"
    elif len(stated) == 1 and (logged[next(iter(stated))] or not logged):
        objective, because = next(iter(stated)), "given by the source"
    elif not stated and len(logged) == 1:
        objective, because = next(iter(logged)), "it is the only metric"
    elif not logged and not stated:
        return None  # nothing to learn from; each run is left out with its reason
    elif options.objectives:
        return f"is of task {task!r}, for which no objective is set; it has {_counted(logged or stated)}"
    else:
        unlogged = f", but not its objective {next(iter(stated))!r}" if len(stated) == 1 else ""
        among = stated if len(stated) > 1 else logged
        mapping.questions.append(f"task {task!r} has {_counted(among)}{unlogged}: pass --objective with the one that decides")
        return None
    direction = _map_direction(task, objective, runs, mapping)
    if direction is None:
        return None
    n_runs = sum(objective in run.curves for run in runs)
    mapping.names.append(NameMapping(f"objective of {task!r}", objective, objective, direction[0], f"{because}; {direction[1]}", n_runs))
    return objective, direction[0]


def _map_direction(task: str, objective: str, runs: Sequence[ForeignRun], mapping: SourceMapping) -> tuple[str, str] | None:
    given = mapping.options.direction
    stated = {run.direction for run in runs if run.direction is not None and run.objective in (None, objective)}
    implied = infer_direction(objective)
    if given is not None:
        if stated and stated != {given}:
            mapping.notes.append(
                f"task {task!r}: the source gives the direction {'/'.join(sorted(stated))}, you set {given}; yours is used"
            )
        return given, f"direction {given}: set by you"
    if len(stated) == 1:
        direction = next(iter(stated))
        if implied is not None and str(implied) != direction:
            mapping.notes.append(f"task {task!r}: the source gives {direction} for {objective!r}, whose name implies {implied}")
        return direction, "direction: given by the source"
    if implied is not None and not stated:
        return str(implied), "direction: from the name"
    mapping.questions.append(f"the name {objective!r} does not imply a direction: pass --direction min or --direction max")
    return None


def is_share(metric: str) -> bool:
    """Whether a metric is a share, such as an accuracy, by its name."""
    return natural_bounds(metric, [0.5]) == (0.0, 1.0)


def unit_of(task: str, objective: str, ranges: Sequence[tuple[float, float]], mapping: SourceMapping) -> str | None:
    """Return whether the objective of a task is a ``fraction`` or ``percent``; None for what is no share.

    Args:
        task: Its name.
        objective: The metric.
        ranges: Smallest and largest finite value of each run.
        mapping: Receives the questions.
    """
    given = mapping.options.units.get(objective)
    if given is not None:
        return None if given == "keep" else given
    if any(word in objective.lower() for word in _PERCENT_WORDS):
        return "percent"
    if not is_share(objective) or not ranges:
        return None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if low < 0 or high > 100:
        mapping.notes.append(f"task {task!r}: {objective!r} leaves [0, 100] ({low:g} to {high:g}): not converted")
        return None
    n_above = sum(top > 1 for _, top in ranges)
    if n_above in {0, len(ranges)}:
        return "percent" if n_above else "fraction"
    mapping.questions.append(
        f"task {task!r}: {objective!r} is above 1 in {n_above} runs and not in {len(ranges) - n_above}: pass --unit {objective}=percent, "
        f"--unit {objective}=fraction (values above 1 are left out) or --unit {objective}=keep"
    )
    return None


def shortened(names: Iterable[str], most: int = 12) -> str:
    """Return names as one bounded text."""
    listed = [str(name)[:60] for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{name!r} ({count} runs)" for name, count in names.most_common())
