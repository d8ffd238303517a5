"""OpenML runs and evaluations: live through openml-python (extra ``import``), and offline from ARFF or CSV dumps of them.

A dump has a row for each run and measure, as ``openml.evaluations.list_evaluations_setups`` returns it and ``to_csv`` writes it (``run_id,
task_id, function, value, parameters``), or a row for each run with a column for each measure and hyperparameter, as published meta-data
sets have it. Task qualities become features of the tasks.
"""

from __future__ import annotations

import ast
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from store.errors import InvalidArgumentError
from store.extras import needed_for
from store.importers.bounded_files import MIB, UnreadableRecordError, csv_rows, existing, parse_json, read_text
from store.importers.foreign import ForeignRun, Progress, Record, SkippedRecord, number_of, value_of_text
from store.importers.mapping import shortened
from store.importers.pipeline import counted
from store.importers.registry import About, count, option, whole_numbers
from store.names import infer_direction
from store.sqlite.bulk import Curve

MEASURES = (
    "predictive_accuracy",
    "area_under_roc_curve",
    "f_measure",
    "root_mean_squared_error",
    "mean_absolute_error",
    "kappa",
    "precision",
)
"""OpenML's most common measures; a dump's other numeric columns count as measures only if ``--objective`` names them."""
_MAX_DUMP_BYTES = 256 * MIB
_MAX_ROWS = 500_000
_MAX_PARAMETERS = 100_000
_ABOUT = frozenset(
    str.split(
        "run_id task_id setup_id flow_id flow_name data_id data_name function upload_time uploader uploader_name value values array_data "
        "parameters task_type evaluations repeat fold"
    )
)
_TASK_KEYS = ("task_id", "task", "data_id", "did")


@dataclass(frozen=True, slots=True)
class OpenmlSource:
    """Runs of OpenML.

    Attributes:
        place: A dump (ARFF or CSV), or ``task:31,37`` for the runs of these tasks, live.
        qualities: A table (ARFF or CSV) with a row for each task: what is known of it.
        objective: The evaluation to ask for, or the column of a dump that is one.
        flows: Only runs of these flows (ids); live only.
        size: Runs to ask for at most, for each task; live only.
    """

    place: str
    qualities: str | None = option("--qualities", "FILE", "Table with a row for each task: its features.")
    objective: str | None = None
    flows: Sequence[int] = option("--flow", "LIST", "Only runs of these flows (ids), if OpenML is asked.", parse=whole_numbers, default=())
    size: int = option("--size", "N", "Runs to ask OpenML for, for each task, up to 10000; default: 1000.", parse=count, default=1_000)
    kind: ClassVar[str] = "openml"
    about: ClassVar = About(
        "runs and evaluations of OpenML",
        "setups and measures of each run; task qualities become features of the task",
        "PLACE",
        "dump (ARFF or CSV), or task:31,37 to ask OpenML",
        "runs.csv --qualities qualities.csv --objective predictive_accuracy",
        "`import` for ARFF and for OpenML itself",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the runs.

        Raises:
            InvalidArgumentError: If there is no such dump or it has no tasks, or OpenML does not answer.
            MissingDependencyError: If a package is needed and missing.
        """
        if self.place.startswith("task:"):
            rows, features = _live(self, progress)
        else:
            rows, features = _dump_rows(existing(self.place, "a dump of OpenML")), {}
        if self.qualities is not None:
            features |= _features(_dump_rows(existing(self.qualities, "a table of task qualities")))
        runs = _runs_of(rows, self.objective)
        report = counted(progress, len(runs), "runs", every=500)
        for index, row in enumerate(runs.values()):
            report(index)
            if row.hparams:
                if "flow_name" in row.facts:
                    row.hparams.setdefault("flow", row.facts["flow_name"])  # what is compared on a task is the algorithm as well
                row.task_features = features.get(str(row.facts["task_id"]), {})
                yield row
            else:
                yield SkippedRecord("has no hyperparameters", "/".join(row.key), is_bad=False)


def _dump_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV or ARFF file."""
    try:
        text = read_text(path, _MAX_DUMP_BYTES)
        if path.suffix.lower() == ".arff" or text[:2_000].lower().lstrip().startswith(("@relation", "%")):
            return _arff_rows(text, path)
        return [{name: value_of_text(cell) for name, cell in row.items()} for row in csv_rows(text, _MAX_ROWS)]
    except UnreadableRecordError as error:
        raise InvalidArgumentError(f"A dump of OpenML must be readable as ARFF or CSV, but {str(path)!r} is not: {error}.") from error


def _arff_rows(text: str, path: Path) -> list[dict[str, Any]]:
    with needed_for("Reading ARFF"):
        import arff
    try:
        found = arff.load(io.StringIO(text), return_type=arff.DENSE_GEN)
        names = [str(name) for name, _ in found["attributes"]]
        rows: list[dict[str, Any]] = []
        for row in found["data"]:
            if len(rows) >= _MAX_ROWS:
                raise UnreadableRecordError(f"a table has more than {_MAX_ROWS} rows")
            rows.append(dict(zip(names, row, strict=False)))
        return rows
    except (arff.ArffException, ValueError, IndexError, RecursionError) as error:
        raise InvalidArgumentError(f"A dump of OpenML must be readable as ARFF, but {str(path)!r} is not: {str(error)[:200]}.") from error


def _runs_of(rows: Sequence[Mapping[str, Any]], measure: str | None) -> dict[tuple[str, ...], ForeignRun]:
    """Return the runs of the rows: several rows may each have one measure of a run."""
    names = list(rows[0]) if rows else []
    task_key = next((name for name in _TASK_KEYS if name in names), None)
    if task_key is None:
        raise InvalidArgumentError(
            f"A dump of OpenML must have rows with a column task_id, but it has: {shortened(names) or 'none'}. Rename it, or use "
            "'metahp import table'."
        )
    is_long = {"function", "value"} <= set(names)
    measures = [] if is_long else _measures(names, measure)
    runs: dict[tuple[str, ...], ForeignRun] = {}
    for row in rows:
        task = _label(row.get(task_key))
        if task is None:
            continue
        values = {str(row["function"]): row["value"]} if is_long else {name: row.get(name) for name in measures}
        hparams = _parameters(row, frozenset({task_key, *measures}))
        key = _key(row, task, hparams)
        run = runs.get(key)
        if run is None:
            run = runs[key] = ForeignRun(key, _task_name(row, task), hparams, facts=_facts(row, task))
            run.order = int(key[1]) if key[1].isdecimal() and len(key[1]) < 10 else len(runs)
        for name, value in values.items():
            number = number_of(value)
            if number is not None:
                run.curves[name[:200]] = Curve([0], [number])
    for run in runs.values():
        run.objective = measure if measure is not None else next(iter(run.curves)) if len(run.curves) == 1 else None
    return runs


def _measures(names: Sequence[str], measure: str | None) -> list[str]:
    if measure is not None:
        if measure not in names:
            raise InvalidArgumentError(f"A measure must be a column of the dump, but there is no {measure!r}; it has: {', '.join(names)}.")
        return [measure, *[name for name in MEASURES if name in names and name != measure]]
    found = [name for name in names if name in MEASURES]
    return found or [name for name in names if name not in _ABOUT and infer_direction(name) is not None]


def _label(value: Any) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)[:100]


def _task_name(row: Mapping[str, Any], task: str) -> str:
    name = row.get("data_name")
    return f"openml-{task}" + (f" {str(name)[:60]}" if isinstance(name, str) and name else "")


def _facts(row: Mapping[str, Any], task: str) -> dict[str, Any]:
    known = {name: row.get(name) for name in ("run_id", "setup_id", "flow_id", "flow_name", "data_name", "upload_time")}
    return {"task_id": task, **{name: str(value)[:200] for name, value in known.items() if value not in (None, "")}}


def _key(row: Mapping[str, Any], task: str, hparams: Mapping[str, Any]) -> tuple[str, ...]:
    run = _label(row.get("run_id"))
    if run is not None:
        return ("run", run)
    described = repr(sorted((name, repr(value)) for name, value in hparams.items()))
    parts = [_label(row.get(name)) or "" for name in ("setup_id", "flow_id", "repeat", "fold")]
    return ("row", task, hashlib.sha256(f"{parts}{described}".encode()).hexdigest()[:16])


def _parameters(row: Mapping[str, Any], others: frozenset[str]) -> dict[str, Any]:
    """Return the hyperparameters of a row: of its column ``parameters``, or of every column that is nothing else."""
    if "parameters" in row:
        return {name: value_of_text(value) if isinstance(value, str) else value for name, value in _named(row["parameters"]).items()}
    return {name: value for name, value in row.items() if name not in _ABOUT and name not in others and value not in (None, "")}


def _named(cell: Any) -> dict[str, Any]:
    """Return the parameters in a cell: a dictionary, or the text of one, in Python's spelling or JSON's."""
    found = cell
    if isinstance(cell, str) and len(cell) <= _MAX_PARAMETERS:
        try:
            found = ast.literal_eval(cell)  # literals only: nothing is called, whatever stands there
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            try:
                found = parse_json(cell)
            except UnreadableRecordError:
                return {}
    if not isinstance(found, dict):
        return {}
    # mlr.classif.svm(5)_cost, sklearn.svm.classes.SVC(16)_C: flow, version, parameter
    plain = {str(name).rpartition(")_")[2]: value for name, value in found.items()}
    return plain if len(plain) == len(found) else {str(name): value for name, value in found.items()}


def _features(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, float]]:
    """Return task -> its finite numbers."""
    names = list(rows[0]) if rows else []
    key = next((name for name in _TASK_KEYS if name in names), None)
    if key is None:
        raise InvalidArgumentError(
            f"A table of task qualities must have a column task_id, but it has: {shortened(names) or 'none'}. Rename the column."
        )
    found: dict[str, Mapping[str, float]] = {}
    for row in rows:
        label = _label(row.get(key))
        numbers = {name: number_of(value) for name, value in row.items() if name != key}
        if label is not None:
            found[label] = {name: number for name, number in numbers.items() if number is not None and math.isfinite(number)}
    return found


def _live(source: OpenmlSource, progress: Progress) -> tuple[list[dict[str, Any]], dict[str, Mapping[str, float]]]:
    """Ask OpenML for the evaluations of tasks, and for what it knows of these."""
    try:
        tasks = [int(part) for part in source.place.removeprefix("task:").split(",")]
    except ValueError as error:
        raise InvalidArgumentError(f"OpenML's tasks must be given as task:31,37, but got {source.place!r}.") from error
    with needed_for("Reading from OpenML"):
        import openml
    rows: list[dict[str, Any]] = []
    features: dict[str, Mapping[str, float]] = {}
    try:
        for index, task in enumerate(tasks):
            progress(index / len(tasks), f"asking for task {task}")
            found: Any = openml.evaluations.list_evaluations_setups(
                source.objective or MEASURES[0], tasks=[task], flows=list(source.flows) or None, size=source.size, output_format="dataframe"
            )
            rows += found.to_dict("records")
            qualities = openml.tasks.get_task(task, download_data=False, download_qualities=True).get_dataset().qualities or {}
            features[str(task)] = {name: float(value) for name, value in qualities.items() if value is not None and math.isfinite(value)}
    except MemoryError:
        raise
    except Exception as error:  # openml, requests and minio each have errors of their own; all mean that it did not answer
        raise InvalidArgumentError(f"OpenML must answer, but it did not: {type(error).__name__}: {str(error)[:200]}.") from error
    return rows, features
