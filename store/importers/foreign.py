"""A run as another tool recorded it: what every importer makes of its format, and the only thing the core knows of a source.

Curves are thinned while they are read, so that a source with millions of values fits into memory: the first and last value, the
smallest and the largest always stay, the others at equal distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from store.records import RunStatus, Source
from store.sqlite.bulk import Curve

MAX_POINTS = 1_000
"""Values kept of one metric of one run: what a learning curve needs, far below what a logger of every step writes."""
_BUFFERED = 50 * MAX_POINTS
"""Values of one metric held while a source is read."""
MAX_METRICS = 100
"""Metrics kept of one run; per-layer histograms and the like are more."""
MAX_HPARAMS = 500
"""Hyperparameters kept of one run; more is a dump of something else."""
MAX_TEXT_CHARS = 2_000
"""Of a hyperparameter that is a text: longer ones (a prompt, a source file) are not tuned."""
MAX_STEP = 2**62
"""SQLite holds whole numbers below 2^63."""

Progress = Callable[[float, str], None]
"""Called with the share done, in [0, 1], and what is being done."""
Point = tuple[int, float, float | None, float | None]
"""Step, value, epoch, seconds since the Unix epoch (or the run's start); None where unknown."""


@dataclass(slots=True)
class ForeignRun:
    """One run of another tool.

    Attributes:
        key: The ids the tool gave it, unique wherever its files lie. The id in the history follows from it.
        task: What the source calls the task.
        hparams: Raw name -> value.
        curves: Metric name -> values.
        status: How it ended; None: to be inferred from its values (see ``FinishedRun``).
        objective: Metric that decided, if the source has it.
        direction: ``min`` or ``max``, if the source has it.
        outcomes: Metric name -> what the tool gives as its outcome (one step and value, or none), where this is not the best of the curve.
        more_metrics: Names of metrics beyond those whose values are kept.
        sources: Raw name -> who decided the value, where that is not the user.
        distributions: Raw name -> the distribution it was drawn from, as ``optuna.distributions.distribution_to_json`` describes it.
        facts: What else is known of the run: shown with it.
        started_utc: Start, UTC in ISO 8601.
        ended_utc: End, UTC in ISO 8601.
        wall_s: Duration in seconds.
        epochs_reached: Epochs, where known.
        error: What it failed with.
        model_class: Class name of the model.
        n_parameters: Number of the model's parameters.
        n_devices: Devices it trained on together, None if unknown.
        batch: ``per-device`` or ``global``, if the format of the source defines it.
        task_features: Numbers that describe the task.
        order: Where it sorts: the start as the tool wrote it, or a number among its like. Part of the id, so it never changes.
    """

    key: tuple[str, ...]
    task: str
    hparams: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    status: RunStatus | None = None
    objective: str | None = None
    direction: str | None = None
    outcomes: dict[str, Curve] = field(default_factory=dict)
    more_metrics: tuple[str, ...] = ()
    sources: dict[str, Source] = field(default_factory=dict)
    distributions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    started_utc: str | None = None
    ended_utc: str | None = None
    wall_s: float | None = None
    epochs_reached: float | None = None
    error: str | None = None
    model_class: str | None = None
    n_parameters: int | None = None
    n_devices: int | None = None
    batch: str | None = None
    task_features: Mapping[str, float] = field(default_factory=dict)
    order: datetime | int = 0


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """A record that is not imported.

    Attributes:
        reason: Why, without what differs from record to record: equal reasons are counted together.
        where: The record, for the first few of a reason.
        is_bad: Whether it is damaged, rather than of no use here (a run that still goes on).
    """

    reason: str
    where: str
    is_bad: bool = True


@dataclass(frozen=True, slots=True)
class SourceNote:
    """What a user should know of how a source was read.

    Attributes:
        text: A sentence without its full stop.
    """

    text: str


Record = ForeignRun | SkippedRecord | SourceNote


class RunSource(Protocol):
    """A place with runs of another tool.

    ``kind`` is the importer's name and ``place`` where the runs lie, without credentials.
    """

    @property
    def kind(self) -> str:
        """Return the importer's name, e.g. ``optuna``."""

    @property
    def place(self) -> str:
        """Return the path or address, without credentials."""

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield every record once; what cannot be read is a ``SkippedRecord`` with its reason, a remark a ``SourceNote``."""


def part_of(progress: Progress, start: float, share: float) -> Progress:
    """Return what reports a part of a whole: from ``start`` on, ``share`` of it."""

    def report(done: float, text: str) -> None:
        progress(start + share * done, text)

    return report


def curve_of(points: Iterable[Point], *, started_s: float | None = None, limit: int = MAX_POINTS) -> Curve | None:
    """Return values in the order of their steps, the last one of each step, thinned; None if there are none.

    Args:
        points: Values in the order they were written.
        started_s: Start of the run in the clock of the points' times; None: they count from the start already.
        limit: Values kept at most, at least 4.
    """
    by_step: dict[int, Point] = {}
    for point in points:
        if -MAX_STEP < point[0] < MAX_STEP:
            by_step[point[0]] = point
        if len(by_step) > _BUFFERED:
            by_step = {kept[0]: kept for kept in thinned([by_step[step] for step in sorted(by_step)], _BUFFERED // 2)}
    ordered = thinned([by_step[step] for step in sorted(by_step)], limit)
    if not ordered:
        return None
    origin = 0.0 if started_s is None else started_s
    times = [None if time is None or not math.isfinite(time) else max(0.0, time - origin) for *_, time in ordered]
    epochs = [epoch for _, _, epoch, _ in ordered]
    return Curve(
        [step for step, *_ in ordered],
        [value for _, value, *_ in ordered],
        None if all(time is None for time in times) else times,
        None if all(epoch is None for epoch in epochs) else epochs,
    )


def gather(points: dict[str, list[Point]], name: str, point: Point) -> None:
    """Note a value of a metric; a curve that grows beyond what is kept of it anyway is thinned on the way."""
    values = points.setdefault(name, [])
    values.append(point)
    if len(values) > _BUFFERED:
        points[name] = thinned(values, _BUFFERED // 2)


def thinned(points: list[Point], limit: int) -> list[Point]:
    """Return at most ``limit`` points at equal distances, the first, last, smallest and largest among them."""
    if len(points) <= limit:
        return points
    finite = [index for index, point in enumerate(points) if math.isfinite(point[1])]
    kept = {0, len(points) - 1}
    if finite:
        kept |= {min(finite, key=lambda index: points[index][1]), max(finite, key=lambda index: points[index][1])}
    places = limit - len(kept)
    kept |= {round(place * (len(points) - 1) / max(1, places)) for place in range(places)}
    return [points[index] for index in sorted(kept)]


def number_of(text: Any) -> float | None:
    """Return a number as a float, None for anything else: a bool is none, a text is one only if it is written as one."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int | float):
        try:
            return float(text)
        except OverflowError:  # an integer beyond every float
            return None
    if isinstance(text, str) and len(text) <= 64 and "_" not in text:
        try:
            return float(text)
        except ValueError:
            return None
    return None


def value_of_text(text: str) -> Any:
    """Return what a text stands for where a tool stores every parameter as text: a number, True, False, None or the text itself."""
    words = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
    if text in words:
        return words[text]
    stripped = text.strip()
    if len(stripped) <= 64 and "_" not in stripped:  # Python reads 1_000 as a number; who writes it so means a word
        for kind in (int, float):
            try:
                return kind(stripped)
            except ValueError:
                continue
    return text


def flattened(values: Mapping[Any, Any], separator: str = ".", limit: int = MAX_HPARAMS) -> dict[str, Any]:
    """Return nested mappings as one, names joined; what lies beyond ``limit`` names or 8 levels is left out."""
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, Any, int]] = [(str(name), value, 1) for name, value in reversed(list(values.items()))]
    seen = 0
    while waiting and len(flat) < limit and seen < 20 * limit:
        name, value, depth = waiting.pop()
        seen += 1
        if isinstance(value, Mapping) and depth < 8:
            waiting += [(f"{name}{separator}{key}", item, depth + 1) for key, item in reversed(list(value.items()))]
        elif not isinstance(value, Mapping):
            flat[name] = value
    return flat


def utc_text(seconds: float | None) -> str | None:
    """Return a moment given in seconds since the Unix epoch as the history writes it; None for none, or one no clock shows."""
    if seconds is None or not 0 < seconds < 2e10:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc_of(moment: datetime | None) -> str | None:
    """Return a moment as the history writes it; one without a time zone is the local time of this machine."""
    return None if moment is None else utc_text(moment.timestamp())


def moment_of(text: Any) -> datetime | None:
    """Return the moment that a text in ISO 8601 names, None for anything else."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
