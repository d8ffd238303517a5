"""Which batch sizes are known to run out of memory: on this card, for this model, from what past runs met.

Two kinds of evidence. A run that ran out of memory says that its batch, and any larger one, is too large for its model and for larger
ones. Runs that finished with two batch sizes say what the weights take and what each sample takes, so the line through their peaks
says which batch fills the card. ``MARGIN`` of it is left free. What has finished did fit, so no limit is below that. Nothing here
guesses: without evidence there is no limit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metamodel.data.task import TaskDescription
from store.hyperparameters import PER_DEVICE_BATCH_SIZE
from store.statuses import FINISHED, RunStatus

if TYPE_CHECKING:
    from store import History, RunRecord

MARGIN = 0.1
"""Share of the memory left free: fragmentation and a longer sample take some, and a failed run costs more than a smaller batch."""

MAX_OOM_RUNS = 200
MAX_FINISHED_RUNS = 200
"""Newest runs looked at of either kind; reading them takes a few hundredths of a second."""


@dataclass(frozen=True)
class Card:
    """An accelerator: its name as runs record it, None for the CPU, and its memory in bytes, None where unknown."""

    name: str | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class MemoryLimit:
    """The largest batch per device that is not known to be too large.

    Attributes:
        max_per_device: In samples.
        reason: Where that is known from, as half a sentence that names the margin.
        run_id: The run it rests on.
    """

    max_per_device: int
    reason: str
    run_id: str


def this_card() -> Card:
    """Return the accelerator the program uses already; nothing is started to find out."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return Card()
    device = torch.cuda.current_device()
    return Card(str(torch.cuda.get_device_name(device)), int(torch.cuda.get_device_properties(device).total_memory))


def known_limit(history: History, description: TaskDescription, card: Card, precision: str | None = None) -> MemoryLimit | None:
    """Return the largest batch per device that a history does not rule out for a model on a card.

    Args:
        history: Open history.
        description: What is to be trained; model class, input shape and number of parameters say which runs count.
        card: Where it is to be trained.
        precision: How numbers are held, as the run would record it; None for any.

    Returns:
        The limit, None where nothing is known.
    """
    oom = history.runs(status="oom", newest_first=True, limit=MAX_OOM_RUNS)
    relevant = [run for run in oom if _is_comparable(run, description, card, precision)]
    if not relevant and card.total_bytes is None:
        return None
    task_ids = {run.task_id for run in relevant} or _task_of(history, description)
    finished = [
        run
        for task_id in sorted(task_ids)
        for run in history.runs(task_id, status=[str(status) for status in FINISHED], newest_first=True, limit=MAX_FINISHED_RUNS)
    ]
    return limit_from_runs([*relevant, *finished], description, card, precision)


def limit_from_runs(
    runs: Iterable[RunRecord], description: TaskDescription, card: Card, precision: str | None = None
) -> MemoryLimit | None:
    """Return the largest batch per device that some runs do not rule out; see ``known_limit``."""
    comparable = [run for run in runs if _is_comparable(run, description, card, precision) and _batch(run) is not None]
    fitted = [run for run in comparable if _has_fitted(run) and _is_at_least(run.n_parameters, description.n_parameters)]
    largest_fitted = max((_batch(run) or 0 for run in fitted), default=0)
    limits = [
        limit
        for limit in (
            _limit_from_failures(comparable, description, largest_fitted, card),
            _limit_from_peaks(fitted, description, largest_fitted, card),
        )
        if limit is not None
    ]
    return min(limits, key=lambda limit: limit.max_per_device, default=None)


def _limit_from_failures(runs: Sequence[RunRecord], description: TaskDescription, largest_fitted: int, card: Card) -> MemoryLimit | None:
    """The smallest batch that failed for this model or a smaller one rules out itself and everything above."""
    failed = [
        run
        for run in runs
        if run.status is RunStatus.OOM
        and _is_at_least(description.n_parameters, run.n_parameters)
        # A batch that fitted another time failed for another reason, e.g. a shared card.
        and (_batch(run) or 0) > largest_fitted
    ]
    if not failed:
        return None
    smallest = min(failed, key=lambda run: (_batch(run) or 0, run.id))
    size = _batch(smallest) or 0
    high = max(largest_fitted, int(size * (1 - MARGIN)) if size > 1 else 1, 1)
    high = min(high, max(size - 1, 1))
    where = f" on {card.name}" if card.name else ""
    return MemoryLimit(high, f"a batch of {size} per device ran out of memory{where} ({MARGIN:.0%} margin kept)", smallest.id)


def _limit_from_peaks(fitted: Sequence[RunRecord], description: TaskDescription, largest_fitted: int, card: Card) -> MemoryLimit | None:
    """Continue the line through the peaks of the smallest and the largest batch that finished for a model of this size."""
    if card.total_bytes is None:
        return None
    peaks: dict[int, RunRecord] = {}
    for run in fitted:
        if not run.peak_gpu_memory_bytes or (description.n_parameters and run.n_parameters != description.n_parameters):
            continue
        size = _batch(run) or 0
        # A process remembers the peak of all its runs, so the least one says most about a batch.
        if size not in peaks or run.peak_gpu_memory_bytes < (peaks[size].peak_gpu_memory_bytes or 0):
            peaks[size] = run
    if len(peaks) < 2:
        return None  # one point does not tell what the weights take from what each sample takes
    small, large = min(peaks), max(peaks)
    low, high = peaks[small].peak_gpu_memory_bytes or 0, peaks[large].peak_gpu_memory_bytes or 0
    per_sample = (high - low) / (large - small)
    if per_sample <= 0:
        return None
    limit = max(largest_fitted, large + int((card.total_bytes * (1 - MARGIN) - high) / per_sample))
    text = (
        f"batches of {small} and {large} per device took {low / 2**30:.1f} and {high / 2**30:.1f} of the "
        f"{card.total_bytes / 2**30:.1f} GiB of {card.name} ({MARGIN:.0%} margin kept)"
    )
    return MemoryLimit(limit, text, peaks[large].id)


def _is_comparable(run: RunRecord, description: TaskDescription, card: Card, precision: str | None) -> bool:
    """Same model class on the same card, with samples of the same size and numbers of the same width, as far as both are known."""
    if run.model_class is None or run.model_class != description.model_class or run.versions.get("gpu") != card.name:
        return False
    shape = run.description.get("input_shape")
    if shape is not None and description.input_shape is not None and tuple(shape) != tuple(description.input_shape):
        return False
    held = run.hparams.get("precision")
    return precision is None or held is None or str(held) == precision


def _has_fitted(run: RunRecord) -> bool:
    return run.status in FINISHED and run.status is not RunStatus.OOM


def _batch(run: RunRecord) -> int | None:
    size: Any = run.hparams.get(PER_DEVICE_BATCH_SIZE)
    is_size = isinstance(size, int | float) and not isinstance(size, bool) and size >= 1
    return int(size) if is_size else None


def _is_at_least(larger: int | None, smaller: int | None) -> bool:
    """Compare numbers of parameters; unknown ones (0: layers that are built later) compare as equal."""
    return not larger or not smaller or larger >= smaller


def _task_of(history: History, description: TaskDescription) -> set[str]:
    from store.ids import task_id_of

    task_id = task_id_of(description.identity())
    return {task.id for task in history.tasks() if task_id == task.id or task_id in task.merged_ids}
