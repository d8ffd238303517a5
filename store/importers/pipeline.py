"""From foreign runs to a history: the part every importer shares.

A source is read once. What its names mean is settled over all of its runs before the first of them is written, and nothing is written
while a question is open. The id of a run follows from the ids its tool gave it, so taking a source in twice changes nothing, and a
source that went on brings only what is new.
"""

from __future__ import annotations

import difflib
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
from store.ids import task_id_of
from store.importers.foreign import MAX_HPARAMS, MAX_METRICS, MAX_TEXT_CHARS, ForeignRun, LeftOut, Progress, RunSource, number_of
from store.importers.mapping import (
    GLOBAL,
    Answers,
    Meaning,
    Reading,
    accumulation_of,
    n_devices_of,
    read_hyperparameters,
    read_objective,
    read_unit,
    shortened,
    stored_names,
)
from store.names import resolve_direction
from store.privacy import redact, redact_text
from store.records import RunStatus
from store.sqlite.bulk import Curve, FinishedRun, origin_digest
from store.values import decode_value, encode_value, storable_text

if TYPE_CHECKING:
    from store.history import History

_EXAMPLES = 3
_NOT_ENDED = "is still running; it comes in once it has ended"
MAX_RUNS = 200_000


@dataclass
class SourceReport:
    """What an import did, or would do.

    Attributes:
        kind: The importer.
        place: Where the runs lie.
        n_found: Records of the source.
        n_new: Runs that were not in the history before.
        n_updated: Runs that were, and read otherwise now: they went on, or another objective or name was given.
        n_known: Runs that were, unchanged.
        n_left_out: Records that do not come in.
        n_bad: Those of them that are damaged.
        n_values: Metric values that came in.
        statuses: Status -> number of the runs taken.
        tasks: Task -> number of the runs taken.
        left_out: Reason, how many, and the first few they are.
        readings: The mapping of names.
        questions: What must be answered before anything comes in.
        notes: What was read otherwise than it stands there.
        is_written: Whether the history was changed.
    """

    kind: str
    place: str
    n_found: int = 0
    n_new: int = 0
    n_updated: int = 0
    n_known: int = 0
    n_left_out: int = 0
    n_bad: int = 0
    n_values: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    left_out: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_written: bool = False


def import_source(
    history: History | None,
    source: RunSource,
    answers: Answers | None = None,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> SourceReport:
    """Take the runs of a source into a history.

    Args:
        history: Where they go; None only with ``dry_run``: as into an empty one.
        source: Where they are.
        answers: What the caller says of the source.
        dry_run: Only say what would come in, questions included.
        progress: Called with the share done, in [0, 1], and what is being done.

    Returns:
        What came in, or would.

    Raises:
        InvalidArgumentError: If a question is open, with the options that answer it; or if the source cannot be read at all.
        ObjectiveError: If the direction given is none.
        StorageError: If the history cannot be written.
    """
    answers = answers or Answers()
    if answers.direction is not None:
        answers = with_fields(answers, direction=str(resolve_direction(answers.objective or "the objective", answers.direction)))
    report = SourceReport(source.kind, redact_text(source.place))
    leaving = _Leaving()
    runs = list(_bounded(_collected(source, answers, report, leaving, progress or (lambda share, text: None)), leaving, report))
    meaning = read_hyperparameters(runs, answers)
    finished = _finished_runs(runs, answers, meaning, history, report, leaving)
    report.readings, report.questions, report.notes = meaning.readings, meaning.questions, [*report.notes, *meaning.notes]
    if report.questions and not dry_run:
        raise InvalidArgumentError(
            f"What {source.kind} recorded must have one meaning, but it can be read in more than one way: {'; '.join(report.questions)}."
        )
    known = known_digests(history, [run.id for run in finished])
    for run in finished:
        digest = known.get(run.id, "")
        report.n_new += run.id not in known
        report.n_known += digest is None or digest == origin_digest(run.description)
        status = str(run.status or ("diverged" if not math.isfinite(run.curves[run.objective].values[-1]) else "completed"))
        report.statuses[status] = report.statuses.get(status, 0) + 1
        report.tasks[run.task] = report.tasks.get(run.task, 0) + 1
    report.n_updated = len(finished) - report.n_new - report.n_known
    report.left_out, report.n_left_out, report.n_bad = leaving.listed(), leaving.count, leaving.n_bad
    if history is not None and not dry_run:
        if progress is not None:
            progress(0.95, "writing")
        counts = history.add_finished_runs(finished, _descriptions(history, finished, runs))
        report.n_values, report.is_written = counts["metrics"], True
    return report


@dataclass
class _Leaving:
    """Records that do not come in, by reason."""

    reasons: dict[str, list[Any]] = field(default_factory=dict)
    count: int = 0
    n_bad: int = 0

    def add(self, record: LeftOut) -> None:
        entry = self.reasons.setdefault(record.reason, [0, []])
        entry[0] += 1
        if len(entry[1]) < _EXAMPLES:
            entry[1].append(redact_text(record.where)[:120])
        self.count += 1
        self.n_bad += record.is_bad

    def listed(self) -> list[tuple[str, int, tuple[str, ...]]]:
        return [(reason, count, tuple(where)) for reason, (count, where) in sorted(self.reasons.items(), key=lambda item: -item[1][0])]


def _collected(source: RunSource, answers: Answers, report: SourceReport, leaving: _Leaving, progress: Progress) -> Iterator[ForeignRun]:
    keys: set[tuple[str, ...]] = set()
    for record in source.read(lambda share, text: progress(0.9 * min(1.0, share), text)):
        report.n_found += 1
        if isinstance(record, LeftOut):
            leaving.add(record)
        elif record.key in keys:
            leaving.add(LeftOut("is the same run as another one of the source", "/".join(record.key), is_bad=False))
        elif record.status is RunStatus.RUNNING:
            leaving.add(LeftOut(_NOT_ENDED, "/".join(record.key), is_bad=False))
        elif len(keys) >= MAX_RUNS:
            leaving.add(LeftOut(f"is beyond the first {MAX_RUNS} runs", "/".join(record.key)))
        else:
            keys.add(record.key)
            if answers.task is not None:
                record.facts.setdefault("task", record.task)
                record.task = answers.task
            yield record


def _bounded(runs: Iterator[ForeignRun], leaving: _Leaving, report: SourceReport) -> Iterator[ForeignRun]:
    """Pass runs on without what is too much of anything; say so once."""
    cut: Counter[str] = Counter()
    for run in runs:
        long = [name for name, value in run.hparams.items() if len(str(value)[: MAX_TEXT_CHARS + 1]) > MAX_TEXT_CHARS or len(name) > 200]
        for name in long:
            del run.hparams[name]
        run.hparams = {name: redact(value, name) for name, value in run.hparams.items()}
        cut[f"hyperparameters longer than {MAX_TEXT_CHARS} characters"] += len(long)
        if len(run.hparams) > MAX_HPARAMS:
            cut[f"hyperparameters beyond the first {MAX_HPARAMS} of a run"] += len(run.hparams) - MAX_HPARAMS
            run.hparams = dict(list(run.hparams.items())[:MAX_HPARAMS])
        if len(run.curves) > MAX_METRICS:
            cut[f"metrics beyond the first {MAX_METRICS} of a run"] += len(run.curves) - MAX_METRICS
            kept = list(run.curves.items())
            run.curves = dict([*[item for item in kept if item[0] == run.objective], *kept][:MAX_METRICS])
        yield run
    report.notes += [f"left out: {count} {what}" for what, count in cut.items() if count]


def _finished_runs(
    runs: Sequence[ForeignRun], answers: Answers, meaning: Meaning, history: History | None, report: SourceReport, leaving: _Leaving
) -> list[FinishedRun]:
    """Return the runs as the history takes them; of a task with an open question none."""
    by_task: dict[str, list[ForeignRun]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    _check_objective(runs, answers)
    finished: list[FinishedRun] = []
    for task, group in by_task.items():
        objective = read_objective(task, group, answers, meaning)
        if objective is None:
            for run in group if not any(run.curves for run in group) else []:
                leaving.add(LeftOut("has no metric", "/".join(run.key), is_bad=False))
            continue
        name, direction = objective
        highest = [(min(values), max(values)) for run in group if (values := _finite(run.curves.get(name)))]
        unit = read_unit(task, name, highest, answers, meaning)
        factor = _factor_of_history(history, task, name, unit, meaning)
        if unit is not None:
            meaning.readings.append(Reading(f"unit of {task!r}", name, unit, _span(highest), _why_unit(name, answers), len(highest)))
        for run in group:
            done = _finished_run(run, name, direction, unit, factor, answers, meaning, report)
            if isinstance(done, LeftOut):
                leaving.add(done)
            else:
                finished.append(done)
    return finished


def _check_objective(runs: Sequence[ForeignRun], answers: Answers) -> None:
    logged = list(dict.fromkeys(name for run in runs for name in run.curves))
    if answers.objective is not None and logged and answers.objective not in logged:
        close = difflib.get_close_matches(answers.objective, logged, 1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidArgumentError(
            f"An objective must be a metric that was recorded, but there is no {answers.objective!r}; recorded were: {shortened(logged)}."
            f"{meant}"
        )


def _why_unit(name: str, answers: Answers) -> str:
    return "you said so" if name in answers.units else "its name and its values say so"


def _span(highest: Sequence[tuple[float, float]]) -> str:
    return f"{min(low for low, _ in highest):g} to {max(high for _, high in highest):g}" if highest else ""


def _finite(curve: Curve | None) -> list[float]:
    return [] if curve is None else [value for value in curve.values if math.isfinite(value)]


def _factor_of_history(history: History | None, task: str, objective: str, unit: str | None, meaning: Meaning) -> float:
    """Return the factor that brings the source's values to the unit this task has in the history already."""
    if history is None or unit is None:
        return 1.0
    known = {record.id: record for record in history.tasks()}.get(task_id_of({"name": storable_text(task)}))
    if known is None or known.best is None or known.objective != objective:
        return 1.0
    held = "percent" if known.best > 1 else "fraction"
    if held == unit or known.direction != "max":
        return 1.0
    meaning.notes.append(f"task {task!r}: {objective!r} is {unit} here and {held} in the history: converted to {held}")
    return 0.01 if held == "fraction" else 100.0


def _finished_run(
    run: ForeignRun,
    objective: str,
    direction: str,
    unit: str | None,
    factor: float,
    answers: Answers,
    meaning: Meaning,
    report: SourceReport,
) -> FinishedRun | LeftOut:
    where = "/".join(run.key)
    curves = dict(run.curves)
    if objective not in curves and run.status in {None, RunStatus.COMPLETED}:
        return LeftOut(f"has no value of {objective!r}", where, is_bad=False)
    if unit == "fraction" and any(value > 1 for value in _finite(curves.get(objective))):
        return LeftOut(f"has values of {objective!r} above 1, which was said to be a fraction", where)
    if factor != 1.0 and objective in curves:
        curves[objective] = with_fields(curves[objective], values=[value * factor for value in curves[objective].values])
    hparams, names = stored_hparams(run, answers, meaning)
    done = FinishedRun(
        id=run_id(report.kind, run),
        task=run.task,
        hparams=hparams,
        objective=objective,
        direction=direction,
        curves={storable_text(name): curve for name, curve in curves.items()},
        status=run.status,
        started_utc=run.started_utc or "1970-01-01T00:00:00.000000Z",
        epochs_reached=run.epochs_reached,
        framework=report.kind,
        sources=run.sources,
        names=names,
        ended_utc=run.ended_utc,
        wall_s=run.wall_s,
        error=run.error,
        model_class=run.model_class,
        n_parameters=run.n_parameters,
    )
    origin = {"importer": report.kind, "place": report.place, "run": where, **run.facts}
    if unit is not None:
        origin["unit"] = unit
    return with_fields(done, description={"origin": {**origin, "digest": _digest_of(done)}})


def stored_hparams(run: ForeignRun, answers: Answers, meaning: Meaning) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the hyperparameters as they are stored, and under which names."""
    hparams = dict(run.hparams)
    for raw, scale in meaning.scales.items():
        number = number_of(hparams.get(raw))
        if number is not None:
            hparams[raw] = number * scale
    names = stored_names(hparams, {raw: name for raw, name in answers.names.items() if raw in hparams})
    by_name = {name: raw for raw, name in names.items()}
    batch = by_name.get("batch_size")
    if batch is None or GLOBAL in by_name:
        return hparams, names
    if meaning.batch == "global":
        names[batch] = GLOBAL
        return hparams, names
    devices, size = n_devices_of(run), number_of(hparams[batch])
    if size is not None and size.is_integer() and (devices is not None or meaning.batch == "per-device"):
        # what every recorder of ours writes beside the size per device
        hparams[GLOBAL] = int(size) * (devices or 1) * accumulation_of(run)
        names[GLOBAL] = GLOBAL
    return hparams, names


def run_id(kind: str, run: ForeignRun) -> str:
    """Return the id of a run: the same wherever and whenever it is read; it sorts among others by its start where that is known."""
    digest = hashlib.sha256(json.dumps([kind, *run.key]).encode()).hexdigest()[:12]
    if isinstance(run.order, datetime):
        return f"{run.order:%y%m%d-%H%M%S}{run.order.microsecond // 1000:03d}-{digest}"
    return f"000000-{min(max(run.order, 0), 999_999_999):09d}-{digest}"


def _digest_of(run: FinishedRun) -> str:
    curves = {name: [*map(list, (curve.steps, map(repr, curve.values)))] for name, curve in sorted(run.curves.items())}
    told = [run.task, run.objective, run.direction, str(run.status), run.error, run.epochs_reached, sorted(run.names.items()), curves]
    hparams = {name: encode_value(value, name) for name, value in sorted(run.hparams.items())}
    return hashlib.sha256(json.dumps([told, hparams]).encode()).hexdigest()[:16]


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
