"""What the names and numbers of a source mean: recognised, or asked for; never guessed in silence.

A name is recognised where the field has one spelling for it, a share as percent where values above 1 leave no other reading, a batch size
as per device where one device makes both readings equal. Where the source leaves two readings open there is a question, and nothing
comes in until the caller answers it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from store.errors import InvalidArgumentError
from store.hyperparameters import NAMES
from store.importers.foreign import ForeignRun, number_of
from store.names import canonical_name, infer_direction, natural_bounds

UNITS = ("percent", "fraction", "keep")
BATCHES = ("per-device", "global")
SHARES = frozenset({"dropout", "warmup_ratio", "label_smoothing", "label_smoothing_factor"})
"""Hyperparameters that are a share: above 1 they are percent, or no share."""
_DEVICES = ("num_devices", "n_devices", "devices", "n_gpu", "n_gpus", "num_gpus", "gpus", "world_size", "num_processes")
_PERCENT_WORDS = ("percent", "pct", "%")
ACCUMULATION, BATCH, GLOBAL = "gradient_accumulation_steps", "batch_size", "global_batch_size"


@dataclass(frozen=True)
class Answers:
    """What the caller says of a source, before what it says of itself.

    Attributes:
        task: Name of the one task that all its runs are of.
        objective: Metric that decides.
        direction: ``min`` or ``max``.
        names: Raw name -> canonical name, where the source's spelling is its own.
        units: Raw name of a metric or hyperparameter -> ``percent``, ``fraction`` or ``keep`` (no share; take it as it stands).
        batch: ``per-device`` or ``global``: what a batch size is where there are several devices or accumulated batches.

    Raises:
        InvalidArgumentError: If a unit or the meaning of the batch size is none of these.
    """

    task: str | None = None
    objective: str | None = None
    direction: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    batch: str | None = None

    def __post_init__(self) -> None:
        """Check the closed sets."""
        for name, unit in self.units.items():
            if unit not in UNITS:
                raise InvalidArgumentError(f"A unit must be {', '.join(UNITS[:-1])} or {UNITS[-1]}, but got {unit!r} for {name!r}.")
        if self.batch is not None and self.batch not in BATCHES:
            raise InvalidArgumentError(f"A batch size must be {' or '.join(BATCHES)}, but got {self.batch!r}. Pass one of the two.")


@dataclass(frozen=True)
class Reading:
    """How one name of the source is read: a line of the mapping.

    Attributes:
        kind: ``hyperparameter``, ``batch size``, or of which task it is the ``objective`` or its ``unit``.
        name: The source's own name.
        becomes: The name in the history.
        meaning: Direction and unit of a metric, the range of a hyperparameter.
        because: Why it is read so.
        n_runs: Runs that have it.
    """

    kind: str
    name: str
    becomes: str
    meaning: str
    because: str
    n_runs: int


@dataclass
class Meaning:
    """How a source is read.

    Attributes:
        readings: One line a name.
        questions: What has to be answered first, each with the option that answers it.
        notes: What was read otherwise than it stands there.
        scales: Raw name of a hyperparameter -> factor it is multiplied by.
        batch: ``per-device``, ``global``, or None where both are the same.
    """

    readings: list[Reading] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    batch: str | None = None


def stored_names(hparams: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return raw name -> stored name so that no two share one: first those the caller names, then canonical spellings, then aliases."""
    taken: set[str] = set()
    result: dict[str, str] = {}
    listed = list(hparams)
    for raw in sorted(listed, key=lambda raw: (raw not in names, raw != canonical_name(raw))):
        name = names.get(raw, canonical_name(raw))
        result[raw] = raw if name in taken else name
        taken.add(result[raw])
    return {raw: result[raw] for raw in listed}


def read_hyperparameters(runs: Sequence[ForeignRun], answers: Answers) -> Meaning:
    """Say what the hyperparameters of a source mean.

    Raises:
        InvalidArgumentError: If the caller names one that no run has.
    """
    meaning = Meaning()
    seen: dict[str, list[Any]] = {}
    for run in runs:
        for name, value in run.hparams.items():
            seen.setdefault(name, []).append(value)
    unknown = [name for name in answers.names if name not in seen]
    if unknown:
        raise InvalidArgumentError(
            f"A hyperparameter to rename must be in the source, but it has no {unknown[0]!r}; it has: {shortened(seen) or 'none'}."
        )
    names = stored_names(seen, answers.names)
    meaning.batch = _read_batch(runs, answers, meaning)
    for raw, values in seen.items():
        name = names[raw]
        numbers = [number for number in map(number_of, values) if number is not None and math.isfinite(number)]
        because = _why(raw, name, answers)
        if name in SHARES and numbers and max(numbers) > 1:
            because = _read_share(raw, numbers, answers, meaning) or because
        if name == BATCH and meaning.batch == "global":
            name, because = GLOBAL, "you said so"
        meaning.readings.append(Reading("hyperparameter", raw, name, _range(values, numbers), because, len(values)))
    return meaning


def _why(raw: str, name: str, answers: Answers) -> str:
    if raw in answers.names:
        return "you said so"
    if name != canonical_name(raw):
        return f"{canonical_name(raw)} is there under its own name"
    if name == raw and name not in NAMES:
        part = canonical_name(re.split(r"[./]", raw)[-1])
        if part != raw and part in NAMES:
            return f"part of a longer name: it keeps its own; --name {raw}={part} if it is that"
        return "no common name is known: it keeps its own"
    if name == raw:
        return "its canonical name"
    return "a known spelling"


def _range(values: Sequence[Any], numbers: Sequence[float]) -> str:
    if numbers and len(numbers) >= len(values) / 2:
        low, high = min(numbers), max(numbers)
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    words = list(dict.fromkeys(str(value)[:24] for value in values))
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _read_share(raw: str, numbers: Sequence[float], answers: Answers, meaning: Meaning) -> str | None:
    unit = answers.units.get(raw)
    if unit is None:
        meaning.questions.append(
            f"{raw!r} is a share, but holds {max(numbers):g}: pass --unit {raw}=percent if 50 means a half, or --unit {raw}=keep"
        )
    elif unit == "percent":
        meaning.scales[raw] = 0.01
        meaning.notes.append(f"{raw!r} was percent and is stored as a fraction")
    return None if unit is None else f"you said: {unit}"


def n_devices_of(run: ForeignRun) -> int | None:
    """Return how many devices a run trained on, None where nothing says so."""
    if run.n_devices is not None:
        return run.n_devices
    for name, value in run.hparams.items():
        if name.lower().replace("-", "_").rpartition(".")[2] in _DEVICES:
            number = number_of(value)
            if number is not None and number >= 1 and number.is_integer():
                return int(number)
    return None


def accumulation_of(run: ForeignRun) -> int:
    """Return how many batches make one step of the optimizer, 1 where nothing says so."""
    values = [number_of(value) for name, value in run.hparams.items() if canonical_name(name) == ACCUMULATION]
    return int(values[0]) if values and values[0] is not None and 1 <= values[0] < 1e9 else 1


def _read_batch(runs: Sequence[ForeignRun], answers: Answers, meaning: Meaning) -> str | None:
    """Say whether batch sizes are per device or of all devices; None where it makes no difference."""
    names = stored_names(dict.fromkeys(name for run in runs for name in run.hparams), answers.names)
    raws = [raw for raw, name in names.items() if name == BATCH]
    if not raws:
        return None
    having = [run for run in runs if raws[0] in run.hparams]
    several = [run for run in having if (n_devices_of(run) or 1) * accumulation_of(run) > 1]
    stated = {run.batch for run in having}
    if answers.batch is not None:
        answer, because = answers.batch, "you said so"
    elif stated == {"per-device"} or raws[0].lower().startswith("per_device"):
        answer, because = "per-device", "the format says so" if stated == {"per-device"} else "its name says so"
    elif not several:
        answer, because = "", "nothing tells of several devices or of accumulated batches: both are the same"
    else:
        answer, because = "", "open"
        most = max((n_devices_of(run) or 1) * accumulation_of(run) for run in several)
        meaning.questions.append(
            f"{raws[0]!r} may be of one device or of all, and {len(several)} runs used up to {most} devices x accumulated batches: "
            "pass --batch per-device or --batch global"
        )
    meaning.readings.append(Reading("batch size", raws[0], answer or "per device or global", "", because, len(having)))
    return answer or None


def read_objective(task: str, runs: Sequence[ForeignRun], answers: Answers, meaning: Meaning) -> tuple[str, str] | None:
    """Say which metric decides in a task and which way; None where that has to be asked.

    Args:
        task: Its name.
        runs: The runs of the task.
        answers: What the caller says.
        meaning: Receives the line of the mapping and the questions.
    """
    logged = Counter(name for run in runs for name in run.curves)
    stated = Counter(run.objective for run in runs if run.objective is not None)
    if answers.objective is not None:
        objective, because = answers.objective, "you said so"
        if not logged[objective] and logged:
            meaning.questions.append(
                f"task {task!r} has no metric {objective!r}; it has {_counted(logged)}: pass --objective with one of them"
            )
            return None
    elif len(stated) == 1:
        objective, because = next(iter(stated)), "the source says so"
    elif not stated and len(logged) == 1:
        objective, because = next(iter(logged)), "it is the only metric"
    elif not logged and not stated:
        return None  # nothing to learn from; each run says why it is left out
    else:
        meaning.questions.append(f"task {task!r} has {_counted(stated or logged)}: pass --objective with the one that decides")
        return None
    direction = _read_direction(task, objective, runs, answers, meaning)
    if direction is None:
        return None
    n_runs = sum(objective in run.curves for run in runs)
    meaning.readings.append(Reading(f"objective of {task!r}", objective, objective, direction[0], f"{because}; {direction[1]}", n_runs))
    return objective, direction[0]


def _read_direction(task: str, objective: str, runs: Sequence[ForeignRun], answers: Answers, meaning: Meaning) -> tuple[str, str] | None:
    stated = {run.direction for run in runs if run.direction is not None and run.objective in (None, objective)}
    implied = infer_direction(objective)
    if answers.direction is not None:
        if stated and stated != {answers.direction}:
            meaning.notes.append(f"task {task!r}: the source says {'/'.join(sorted(stated))}, you say {answers.direction}; yours counts")
        return answers.direction, f"direction {answers.direction}: you said so"
    if len(stated) == 1:
        direction = next(iter(stated))
        if implied is not None and str(implied) != direction:
            meaning.notes.append(f"task {task!r}: the source says {direction} of {objective!r}, whose name sounds like {implied}")
        return direction, "direction: the source says so"
    if implied is not None and not stated:
        return str(implied), "direction: the name says so"
    meaning.questions.append(f"the name {objective!r} does not say which way is better: pass --direction min or --direction max")
    return None


def is_share(metric: str) -> bool:
    """Say whether a metric is a share, such as an accuracy, by its name."""
    return natural_bounds(metric, [0.5]) == (0.0, 1.0)


def read_unit(task: str, objective: str, highest: Sequence[tuple[float, float]], answers: Answers, meaning: Meaning) -> str | None:
    """Say whether the objective of a task is a fraction or percent; None for what is no share.

    Args:
        task: Its name.
        objective: The metric.
        highest: Smallest and largest finite value of each run.
        answers: What the caller says.
        meaning: Receives the questions.
    """
    given = answers.units.get(objective)
    if given is not None:
        return None if given == "keep" else given
    if any(word in objective.lower() for word in _PERCENT_WORDS):
        return "percent"
    if not is_share(objective) or not highest:
        return None
    low, high = min(low for low, _ in highest), max(high for _, high in highest)
    if low < 0 or high > 100:
        meaning.notes.append(f"task {task!r}: {objective!r} leaves [0, 100] ({low:g} to {high:g}): taken as it stands")
        return None
    n_above = sum(top > 1 for _, top in highest)
    if n_above in {0, len(highest)}:
        return "percent" if n_above else "fraction"
    meaning.questions.append(
        f"task {task!r}: {objective!r} is above 1 in {n_above} runs and not in {len(highest) - n_above}: pass --unit {objective}=percent, "
        f"--unit {objective}=fraction (values above 1 are left out) or --unit {objective}=keep"
    )
    return None


def shortened(names: Iterable[str], most: int = 12) -> str:
    """Return names as one bounded text."""
    listed = [str(name)[:60] for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _counted(names: Counter[str]) -> str:
    return shortened(f"{name!r} ({count} runs)" for name, count in names.most_common())
