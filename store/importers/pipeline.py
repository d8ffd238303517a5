"""From foreign runs to a history: what all importers share.

A source is read once. Its names are mapped over all of its runs before the first of them is written, and nothing is written while a
question is open. The id of a run follows from the ids its tool gave it, so a second import changes nothing, and a source that went on
brings only what is new.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from store.errors import InvalidArgumentError
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.ids import task_id_of
from store.importers.endings import UnfinishedRuns
from store.importers.foreign import (
    MAX_HPARAMS,
    MAX_METRICS,
    MAX_TEXT_CHARS,
    ForeignRun,
    Progress,
    RunSource,
    SkippedRecord,
    SourceNote,
    number_of,
)
from store.importers.mapping import (
    ImportOptions,
    NameMapping,
    SourceMapping,
    accumulation_of,
    map_hyperparameters,
    map_objective,
    n_devices_of,
    stored_names,
    unit_of,
    with_objectives,
)
from store.importers.task_names import joining_notes
from store.names import resolve_direction
from store.privacy import redact, redact_text
from store.records import RunStatus
from store.sqlite.bulk import Curve, FinishedRun, origin_digest
from store.values import decode_value, encode_value, storable_text

if TYPE_CHECKING:
    from store.history import History

_EXAMPLES = 3
MAX_RUNS = 200_000


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What an import did, or would do.

    Attributes:
        kind: The importer.
        place: Where the runs lie.
        n_found: Records of the source.
        n_new: Runs that were not in the history before.
        n_updated: Runs that were and have changed: they went on, or another objective or name was given.
        n_known: Runs that were, unchanged.
        n_left_out: Records that are skipped.
        n_bad: Those of them that are damaged.
        n_values: Metric values that were written.
        statuses: Status -> number of runs.
        tasks: Task -> number of runs.
        left_out: Reason for skipping, how many, and the first few of them.
        names: How each name is read.
        questions: What must be answered first.
        notes: What was converted or cut.
        is_written: Whether the history was changed.
    """

    kind: str
    place: str
    n_found: int
    n_new: int
    n_updated: int
    n_known: int
    n_left_out: int
    n_bad: int
    n_values: int
    statuses: dict[str, int]
    tasks: dict[str, int]
    left_out: list[tuple[str, int, tuple[str, ...]]]
    names: list[NameMapping]
    questions: list[str]
    notes: list[str]
    is_written: bool


def import_source(
    history: History | None,
    source: RunSource,
    options: ImportOptions | None = None,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> SourceReport:
    """Import the runs of a source into a history.

    Args:
        history: Where they go; None only with ``dry_run``: as into an empty one.
        source: Where they are.
        options: What the user sets; it comes before what the source gives.
        dry_run: Only report what would be imported, questions included.
        progress: Called with the share done, in [0, 1], and what is being done.

    Returns:
        What was imported, or would be.

    Raises:
        InvalidArgumentError: If a question is open, with the options that answer it; or if the source cannot be read at all.
        ObjectiveError: If the direction given is none.
        StorageError: If the history cannot be written.
    """
    options = options or ImportOptions()
    if options.direction is not None:
        options = with_fields(options, direction=str(resolve_direction(options.objective or "the objective", options.direction)))
    show = progress or (lambda share, text: None)
    skipped = _Skipped()
    cut: Counter[str] = Counter()
    notes: list[str] = []
    runs = list(_collected(source, options, skipped, cut, notes, show))
    options = with_objectives(options, runs)
    mapping = map_hyperparameters(runs, options)
    finished = _finished_runs(runs, mapping, history, (source.kind, redact_text(source.place)), skipped)
    if mapping.questions and not dry_run:
        raise InvalidArgumentError(f"What {source.kind} recorded is ambiguous: {'; '.join(mapping.questions)}.")
    known = known_digests(history, [run.id for run in finished])
    n_new = sum(run.id not in known for run in finished)
    n_known = sum(run.id in known and known[run.id] in {None, origin_digest(run.description)} for run in finished)
    is_written = history is not None and not dry_run
    if history is not None:
        ids_by_task: dict[str, set[str]] = {}
        for run in finished:
            ids_by_task.setdefault(run.task, set()).add(run.id)
        mapping.notes.extend(joining_notes(history, ids_by_task, source.kind, redact_text(source.place)))
    n_values = 0
    if history is not None and is_written:
        show(0.95, "writing")
        n_values = history.add_finished_runs(finished, _descriptions(history, finished, runs))["metrics"]
    return SourceReport(
        kind=source.kind,
        place=redact_text(source.place),
        n_found=len(runs) + skipped.n_unread,
        n_new=n_new,
        n_updated=len(finished) - n_new - n_known,
        n_known=n_known,
        n_left_out=skipped.count,
        n_bad=skipped.n_bad,
        n_values=n_values,
        statuses=dict(Counter(map(_status_of, finished))),
        tasks=dict(Counter(run.task for run in finished)),
        left_out=skipped.listed(),
        names=mapping.names,
        questions=mapping.questions,
        notes=[*(f"left out: {count} {what}" for what, count in cut.items() if count), *notes, *mapping.notes],
        is_written=is_written,
    )


def _status_of(run: FinishedRun) -> str:
    return str(run.status or ("completed" if math.isfinite(run.curves[run.objective].values[-1]) else "diverged"))


@dataclass(slots=True)
class _Skipped:
    """Records that are not imported, by reason; ``n_unread`` of them before their names were mapped."""

    reasons: dict[str, list[SkippedRecord]] = field(default_factory=dict)
    n_unread: int = 0

    def add(self, record: SkippedRecord) -> None:
        self.reasons.setdefault(record.reason, []).append(record)

    @property
    def count(self) -> int:
        return sum(map(len, self.reasons.values()))

    @property
    def n_bad(self) -> int:
        return sum(record.is_bad for records in self.reasons.values() for record in records)

    def listed(self) -> list[tuple[str, int, tuple[str, ...]]]:
        listed = [
            (reason, len(records), tuple(redact_text(record.where)[:120] for record in records[:_EXAMPLES]))
            for reason, records in self.reasons.items()
        ]
        return sorted(listed, key=lambda item: -item[1])


def _collected(
    source: RunSource, options: ImportOptions, skipped: _Skipped, cut: Counter[str], notes: list[str], progress: Progress
) -> Iterator[ForeignRun]:
    unfinished = UnfinishedRuns(options.unfinished)
    keys: set[tuple[str, ...]] = set()
    for record in source.read(lambda share, text: progress(0.9 * min(1.0, share), text)):
        if isinstance(record, SourceNote):
            notes.append(record.text)
            continue
        if isinstance(record, ForeignRun):
            record = unfinished.ended(record)
        if isinstance(record, SkippedRecord):
            skipped.add(record)
        elif record.key in keys:
            skipped.add(SkippedRecord("is the same run as another one of the source", "/".join(record.key), is_bad=False))
        elif len(keys) >= MAX_RUNS:
            skipped.add(SkippedRecord(f"is beyond the first {MAX_RUNS} runs", "/".join(record.key)))
        else:
            keys.add(record.key)
            if options.task is not None:
                record.facts.setdefault("task", record.task)
                record.task = options.task
            _cut(record, options, cut)
            yield record
    notes.extend(filter(None, [unfinished.note()]))
    skipped.n_unread = skipped.count


def _cut(run: ForeignRun, options: ImportOptions, cut: Counter[str]) -> None:
    """Redact a run, cut what is too much of anything, and count what was cut."""
    long = [name for name, value in run.hparams.items() if len(str(value)[: MAX_TEXT_CHARS + 1]) > MAX_TEXT_CHARS or len(name) > 200]
    for name in long:
        del run.hparams[name]
    run.hparams = {name: redact(value, name) for name, value in run.hparams.items()}
    cut[f"hyperparameters longer than {MAX_TEXT_CHARS} characters"] += len(long)
    cut[f"hyperparameters beyond the first {MAX_HPARAMS} of a run"] += max(0, len(run.hparams) - MAX_HPARAMS)
    run.hparams = dict(list(run.hparams.items())[:MAX_HPARAMS])
    if len(run.curves) > MAX_METRICS:
        cut[f"metrics beyond the first {MAX_METRICS} of a run"] += len(run.curves) - MAX_METRICS
        given = options.objective or ""
        deciding = {run.objective, given, *(part.partition("=")[2] for part in given.split(",")), *given.split(",")}
        ordered = sorted(run.curves, key=lambda name: name not in deciding)  # stable: else as they were recorded
        run.more_metrics += tuple(ordered[MAX_METRICS:])
        run.curves = {name: run.curves[name] for name in ordered[:MAX_METRICS]}


def _finished_runs(
    runs: Sequence[ForeignRun], mapping: SourceMapping, history: History | None, origin: tuple[str, str], skipped: _Skipped
) -> list[FinishedRun]:
    """Return the runs as the history takes them; none of a task with an open question."""
    by_task: dict[str, list[ForeignRun]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    finished: list[FinishedRun] = []
    for task, group in by_task.items():
        n_before = len(finished)
        objective = map_objective(task, group, mapping)
        if objective is None or isinstance(objective, str):
            has_none = objective is None and not any(run.curves for run in group)
            for run in group if objective is not None or has_none else []:
                skipped.add(SkippedRecord(objective or "has no metric", "/".join(run.key), is_bad=False))
            continue
        ranges = [(min(values), max(values)) for run in group if (values := _finite(run.curves.get(objective[0])))]
        unit = unit_of(task, objective[0], ranges, mapping)
        factor = _factor_of_history(history, task, objective[0], unit, mapping)
        if unit is not None:
            because = "set by you" if objective[0] in mapping.options.units else "from its name and its values"
            mapping.names.append(NameMapping(f"unit of {task!r}", objective[0], unit, _span(ranges), because, len(ranges)))
        for run in group:
            done = _finished_run(run, objective, unit, factor, mapping, origin)
            if isinstance(done, SkippedRecord):
                skipped.add(done)
            else:
                finished.append(done)
        _note_better_values(task, objective, finished[n_before:], mapping)
    return finished


def _note_better_values(task: str, objective: tuple[str, str], runs: Sequence[FinishedRun], mapping: SourceMapping) -> None:
    """Note where a tool gives another outcome than the best value of the curve."""
    if mapping.options.outcome is not None:
        return
    best = max if objective[1] == "max" else min
    n_better = 0
    for run in runs:
        values, given = _finite(run.curves.get(objective[0])), _finite(run.outcome)
        n_better += bool(values and given and best(values + given) != given[-1])
    if n_better:
        mapping.notes.append(
            f"task {task!r}: the outcome is what the tool gives; {n_better} of {len(runs)} runs had a better {objective[0]!r} on the way, "
            "which --outcome best takes"
        )


def _span(highest: Sequence[tuple[float, float]]) -> str:
    return f"{min(low for low, _ in highest):g} to {max(high for _, high in highest):g}" if highest else ""


def _finite(curve: Curve | None) -> list[float]:
    return [] if curve is None else [value for value in curve.values if math.isfinite(value)]


def _factor_of_history(history: History | None, task: str, objective: str, unit: str | None, mapping: SourceMapping) -> float:
    """Return the factor that brings the source's values to the unit this task has in the history already."""
    if history is None or unit is None:
        return 1.0
    known = {record.id: record for record in history.tasks()}.get(task_id_of({"name": storable_text(task)}))
    if known is None or known.best is None or known.objective != objective:
        return 1.0
    held = "percent" if known.best > 1 else "fraction"
    if held == unit or known.direction != "max":
        return 1.0
    mapping.notes.append(f"task {task!r}: {objective!r} is {unit} here and {held} in the history: converted to {held}")
    return 0.01 if held == "fraction" else 100.0


def _finished_run(
    run: ForeignRun, objective: tuple[str, str], unit: str | None, factor: float, mapping: SourceMapping, origin: tuple[str, str]
) -> FinishedRun | SkippedRecord:
    where, (metric, direction), (kind, place) = "/".join(run.key), objective, origin
    curves = dict(run.curves)
    if metric not in curves and run.status in {None, RunStatus.COMPLETED}:
        return SkippedRecord(f"has no value of {metric!r}", where, is_bad=False)
    if unit == "fraction" and any(value > 1 for value in _finite(curves.get(metric))):
        return SkippedRecord(f"has values of {metric!r} above 1, which is set to be a fraction", where)
    outcome = _outcome_of(run, metric, mapping.options.outcome)
    if factor != 1.0 and metric in curves:
        curves[metric] = _scaled(curves[metric], factor)
        outcome = None if outcome is None else _scaled(outcome, factor)
    hparams, names = stored_hparams(run, mapping)
    done = FinishedRun(
        id=run_id(kind, run),
        task=run.task,
        hparams=hparams,
        objective=metric,
        direction=direction,
        curves={storable_text(name): curve for name, curve in curves.items()},
        status=run.status,
        started_utc=run.started_utc or "1970-01-01T00:00:00.000000Z",
        epochs_reached=run.epochs_reached,
        framework=kind,
        sources=run.sources,
        names=names,
        ended_utc=run.ended_utc,
        wall_s=run.wall_s,
        error=run.error,
        model_class=run.model_class,
        n_parameters=run.n_parameters,
        outcome=outcome,
    )
    facts = {"importer": kind, "place": place, "run": where, **run.facts, **({} if unit is None else {"unit": unit})}
    return with_fields(done, description={"origin": {**facts, "digest": _digest_of(done)}})


def _outcome_of(run: ForeignRun, metric: str, given: str | None) -> Curve | None:
    """Return what the outcome is taken of, None for the objective's curve."""
    curve = run.curves.get(metric)
    if given == "last" and curve is not None:
        return Curve(curve.steps[-1:], curve.values[-1:])
    return run.outcomes.get(metric) if given is None else None


def _scaled(curve: Curve, factor: float) -> Curve:
    return with_fields(curve, values=[value * factor for value in curve.values])


def stored_hparams(run: ForeignRun, mapping: SourceMapping) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the hyperparameters as they are stored, and under which names."""
    hparams = dict(run.hparams)
    for raw, scale in mapping.scales.items():
        number = number_of(hparams.get(raw))
        if number is not None:
            hparams[raw] = number * scale
    names = stored_names(hparams, {raw: name for raw, name in mapping.options.names.items() if raw in hparams})
    by_name = {name: raw for raw, name in names.items()}
    batch = by_name.get(PER_DEVICE_BATCH_SIZE)
    if batch is None or GLOBAL_BATCH_SIZE in by_name:
        return hparams, names
    if mapping.batch == "global":
        names[batch] = GLOBAL_BATCH_SIZE
        return hparams, names
    devices, size = n_devices_of(run), number_of(hparams[batch])
    if size is not None and size.is_integer() and (devices is not None or mapping.batch == "per-device"):
        # what every recorder of ours writes beside the size per device
        hparams[GLOBAL_BATCH_SIZE] = int(size) * (devices or 1) * accumulation_of(run)
        names[GLOBAL_BATCH_SIZE] = GLOBAL_BATCH_SIZE
    return hparams, names


def run_id(kind: str, run: ForeignRun) -> str:
    """Return the id of a run: the same wherever and whenever it is read; it sorts among others by its start where that is known."""
    digest = hashlib.sha256(json.dumps([kind, *run.key]).encode()).hexdigest()[:12]
    if isinstance(run.order, datetime):
        return f"{run.order:%y%m%d-%H%M%S}{run.order.microsecond // 1000:03d}-{digest}"
    return f"000000-{min(max(run.order, 0), 999_999_999):09d}-{digest}"


def _digest_of(run: FinishedRun) -> str:
    curves = {name: [*map(list, (curve.steps, map(repr, curve.values)))] for name, curve in sorted(run.curves.items())}
    values: list[Any] = [run.task, run.objective, run.direction, str(run.status), run.error, run.epochs_reached]
    values += [sorted(run.names.items()), curves]
    if run.outcome is not None:
        values.append([*map(list, (run.outcome.steps, map(repr, run.outcome.values)))])
    hparams = {name: encode_value(value, name) for name, value in sorted(run.hparams.items())}
    return hashlib.sha256(json.dumps([values, hparams]).encode()).hexdigest()[:16]


def known_digests(history: History | None, ids: Sequence[str]) -> dict[str, str | None]:
    """Return id -> digest of those runs that the history has; None for one that was not imported from a source."""
    if history is None:
        return {}
    found: dict[str, str | None] = {}
    with history._using() as connection:
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            places = ", ".join("?" * len(some))
            for row in connection.execute(f"SELECT id, description_json FROM runs WHERE id IN ({places})", list(some)):
                found[row[0]] = origin_digest(decode_value(row[1]) or {})
    return found


def _descriptions(history: History, finished: Sequence[FinishedRun], runs: Sequence[ForeignRun]) -> dict[str, dict[str, Any]]:
    """Return task -> what is known of it: what the history knows, features, and the distributions its values were drawn from."""
    known = {record.id: record.description for record in history.tasks()}
    taken = {run.task for run in finished}
    described: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.task not in taken:
            continue
        if run.task not in described:
            described[run.task] = dict(known.get(task_id_of({"name": storable_text(run.task)}), {}))
        entry = described[run.task]
        if run.task_features:
            entry["features"] = {**entry.get("features", {}), **run.task_features}
        if run.distributions:
            # of a study that was changed on the way the later one counts
            entry["distributions"] = {**entry.get("distributions", {}), **run.distributions}
    return {task: described[task] for task in taken if described.get(task)}


def counted(progress: Progress, total: int, what: str, every: int = 20) -> Callable[[int], None]:
    """Return a function that reports every so many of a number of records."""

    def report(done: int) -> None:
        if done % every == 0:
            progress(done / max(total, 1), f"{done} {what}")

    return report
