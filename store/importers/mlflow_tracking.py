"""MLflow runs: an ``mlruns`` folder or a SQLite file, read as they lie; or a tracking server, through MLflow's client (extra ``import``).

The outcome of a run is the last value of a metric, as MLflow's own tables have it; the curve is kept.
Formats: ``mlflow/store/tracking/file_store.py`` (a folder for each run; ``metrics/<name>`` holds lines of timestamp, value and step) and
``mlflow/store/tracking/dbmodels/models.py``.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from store.errors import InvalidArgumentError
from store.extras import needed_for
from store.importers.bounded_files import MIB, UnreadableRecordError, existing, read_text, sqlite_address, sqlite_path
from store.importers.foreign import (
    MAX_METRICS,
    ForeignRun,
    Point,
    Progress,
    Record,
    SkippedRecord,
    SourceNote,
    curve_of,
    utc_text,
    value_of_text,
)
from store.importers.pipeline import counted
from store.importers.registry import About, option
from store.importers.task_names import is_default_name, unique_name
from store.importers.yaml_text import parse_yaml_mapping
from store.privacy import redact_text
from store.records import RunStatus
from store.sqlite.bulk import Curve

_STATUS_NUMBERS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_STATUSES = {
    "RUNNING": RunStatus.RUNNING,
    "SCHEDULED": RunStatus.RUNNING,
    "FAILED": RunStatus.FAILED,
    "KILLED": RunStatus.INTERRUPTED,
    "FINISHED": None,
}
_LARGEST = 1.7976931348623157e308
"""What MLflow's database stores in the place of infinity."""
_MAX_METRIC_BYTES = 64 * MIB
_MAX_PARAMS = 2_000
_DELETED = "was deleted in MLflow"
_TABLES = frozenset({"experiments", "runs", "params", "metrics"})
_MAX_METRICS = 10 * MAX_METRICS
"""Metrics read of one run; of these the objective and the first ones are kept."""
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class MlflowSource:
    """Runs of MLflow.

    Attributes:
        place: An ``mlruns`` folder, a SQLite file, or a tracking URI (``http://...``, ``sqlite:///...``, ``file:///...``).
        experiments: Names of those to read; empty: all.
    """

    place: str
    experiments: Collection[str] = option(
        "--experiment", "NAME", "Only this experiment; may be given several times; default: all.", default=(), is_repeated=True
    )
    kind: ClassVar[str] = "mlflow"
    about: ClassVar = About(
        "MLflow runs, each experiment as a task",
        "parameters with their types, metrics with step and time, status, start and end",
        "PLACE",
        "mlruns folder, SQLite file, or tracking URI",
        "mlruns --objective val_loss",
        "`import` for a server",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the runs of the experiments.

        Raises:
            InvalidArgumentError: If there is no such place or experiment, or it is none of MLflow's.
            MissingDependencyError: If MLflow is needed and missing.
        """
        scheme, separator, rest = self.place.partition("://")
        chosen = _Experiments(self.experiments)
        if scheme.partition("+")[0] == "sqlite":
            yield from _database_runs(existing(sqlite_path(rest), "MLflow's SQLite file"), chosen, progress)
        elif not self.place.startswith("file:") and (separator or self.place.startswith("databricks")):
            yield from _server_runs(self.place, chosen, progress)
        else:
            place = unquote(urlsplit(self.place).path) if self.place.startswith("file:") else self.place
            yield from _local_runs(existing(place, "an mlruns folder or MLflow's SQLite file"), chosen, progress)
        chosen.check()


@dataclass(slots=True)
class _Experiments:
    """Which experiments are read, and which were found."""

    wanted: Collection[str]
    found: set[str] = field(default_factory=set)

    def takes(self, name: str) -> bool:
        self.found.add(name)
        return not self.wanted or name in self.wanted

    def check(self) -> None:
        missing = [name for name in self.wanted if name not in self.found]
        if missing:
            listed = ", ".join(map(repr, sorted(self.found))) or "none"
            raise InvalidArgumentError(
                f"An experiment must have runs, but {missing[0]!r} has none in the store; others with runs: {listed}."
            )


def _local_runs(path: Path, chosen: _Experiments, progress: Progress) -> Iterator[Record]:
    """Yield the runs of a file, or of a folder; of the database in it or beside it where the folder holds artifacts only."""
    if path.is_file():
        yield from _database_runs(path, chosen, progress)
        return
    folder = path / "mlruns" if (path / "mlruns").is_dir() and not (path / "meta.yaml").exists() else path
    metas = sorted(folder.glob("*/*/meta.yaml")) or sorted(folder.glob("*/meta.yaml"))
    runs = [meta for meta in metas if (meta.parent / "metrics").is_dir() or (meta.parent / "params").is_dir()]
    places = dict.fromkeys([path, folder, *([folder.parent] if folder.name == "mlruns" else [])])
    files = [file for place in places for file in sorted(place.iterdir()) if _is_database(file)]
    names = ", ".join(repr(file.name) for file in files)
    if runs:
        if files:
            yield SourceNote(f"{folder.name!r} was read; the database beside it, {names}, is imported by its own name")
        yield from _folder_runs(folder, runs, chosen, progress)
    elif len(files) > 1:
        raise InvalidArgumentError(f"A source must be one store, but {str(folder)!r} has no runs and beside it are {names}. Name one.")
    elif files:
        yield SourceNote(f"{folder.name!r} holds no runs; {names} beside it was read")
        yield from _database_runs(files[0], chosen, progress)
    elif not metas:
        raise InvalidArgumentError(
            f"A source must be an mlruns folder, but {str(folder)!r} has no runs of MLflow. Give the folder or SQLite file itself."
        )


def _is_database(path: Path) -> bool:
    if path.suffix not in {".db", ".sqlite", ".sqlite3"} or path.is_symlink() or not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(sqlite_address(path), uri=True)) as connection:
            return _has_tables(connection)
    except (sqlite3.Error, OSError):
        return False


def _has_tables(connection: sqlite3.Connection) -> bool:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} >= _TABLES


def _folder_runs(folder: Path, runs: Sequence[Path], chosen: _Experiments, progress: Progress) -> Iterator[Record]:
    names: dict[Path, str] = {}
    report = counted(progress, len(runs), "runs")
    for index, meta in enumerate(runs):
        report(index)
        experiment = meta.parent.parent
        if experiment not in names:
            names[experiment] = _experiment_name(experiment)
        if not chosen.takes(names[experiment]):
            yield _not_chosen(names[experiment])
            continue
        try:
            yield _folder_run(meta, names[experiment], unique_name(names[experiment], folder))
        except UnreadableRecordError as error:
            yield SkippedRecord(str(error), meta.parent.name)


def _not_chosen(experiment: str) -> SkippedRecord:
    return SkippedRecord("is of an experiment that --experiment does not name", experiment, is_bad=False)


def _folder_run(meta: Path, experiment: str, task: str) -> Record:
    about = parse_yaml_mapping(read_text(meta, MIB))
    folder = meta.parent
    if about.get("lifecycle_stage") == "deleted":
        return SkippedRecord(_DELETED, folder.name, is_bad=False)
    status = about.get("status", "")
    run = _new_run(
        str(about.get("run_id") or about.get("run_uuid") or folder.name)[:64],
        (experiment, task),
        str(about.get("run_name") or ""),
        _STATUS_NUMBERS.get(status, "") if isinstance(status, int) else str(status),
        (about.get("start_time"), about.get("end_time")),
    )
    for name, file in _named_files(folder / "params", _MAX_PARAMS):
        run.hparams[name] = value_of_text(read_text(file, MIB).rstrip("\n"))
    for name, file in _named_files(folder / "metrics", _MAX_METRICS):
        points = sorted(_metric_lines(read_text(file, _MAX_METRIC_BYTES)), key=lambda point: (point[0], point[3] or 0.0))
        _add_curve(run, name, curve_of(points, started_s=_seconds(about.get("start_time"))))
    return run


def _add_curve(run: ForeignRun, name: str, curve: Curve | None) -> None:
    if curve is not None:
        run.curves[name] = curve
        run.outcomes[name] = Curve(curve.steps[-1:], curve.values[-1:])


def _experiment_name(folder: Path) -> str:
    try:
        return str(parse_yaml_mapping(read_text(folder / "meta.yaml", MIB)).get("name") or folder.name)
    except UnreadableRecordError:
        return folder.name  # the runs are whole without the name people gave their experiment


def _named_files(folder: Path, most: int) -> Iterator[tuple[str, Path]]:
    """Yield name -> file; MLflow makes folders of names with a slash."""
    found = 0
    for place, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if found < most and not path.is_symlink():
                found += 1
                yield path.relative_to(folder).as_posix(), path


def _metric_lines(text: str) -> Iterator[Point]:
    for line in text.splitlines():
        parts = line.split()
        if len(parts) not in {2, 3, 5}:  # with two, from before there were steps; with five, of a metric on a data set
            raise UnreadableRecordError("a metric has lines that are no timestamp, value and step")
        try:
            yield int(parts[2]) if len(parts) > 2 else 0, float(parts[1]), None, int(parts[0]) / 1000
        except (ValueError, OverflowError) as error:
            raise UnreadableRecordError("a metric has lines that are no timestamp, value and step") from error


def _database_runs(path: Path, chosen: _Experiments, progress: Progress) -> Iterator[Record]:
    try:
        with closing(sqlite3.connect(sqlite_address(path), uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            if not _has_tables(connection):
                raise InvalidArgumentError(f"A source must be MLflow's database, but {str(path)!r} lacks its tables. Give the right file.")
            query = (
                "SELECT r.*, e.name AS experiment FROM runs AS r JOIN experiments AS e USING (experiment_id) "
                "ORDER BY r.start_time, r.run_uuid"
            )
            rows = connection.execute(query).fetchall()
            report = counted(progress, len(rows), "runs")
            for index, row in enumerate(rows):
                report(index)
                experiment = str(row["experiment"])
                taken = chosen.takes(experiment)
                yield _database_run(connection, row, unique_name(experiment, path)) if taken else _not_chosen(experiment)
    except sqlite3.Error as error:
        raise InvalidArgumentError(f"A source must be MLflow's database, but {str(path)!r} cannot be read as one: {error}.") from error


def _database_run(connection: sqlite3.Connection, row: sqlite3.Row, task: str) -> Record:
    identity = str(row["run_uuid"])[:64]
    if row["lifecycle_stage"] == "deleted":
        return SkippedRecord(_DELETED, identity, is_bad=False)
    try:
        names, moments = (str(row["experiment"]), task), (row["start_time"], row["end_time"])
        run = _new_run(identity, names, str(row["name"] or ""), str(row["status"]), moments)
        params = connection.execute("SELECT key, value FROM params WHERE run_uuid = ? LIMIT ?", (row["run_uuid"], _MAX_PARAMS))
        run.hparams = {str(name): value_of_text(str(value)) for name, value in params}
        query = "SELECT DISTINCT key FROM metrics WHERE run_uuid = ? LIMIT ?"
        started = _seconds(row["start_time"])
        for (name,) in connection.execute(query, (row["run_uuid"], _MAX_METRICS)).fetchall():
            values = connection.execute(
                "SELECT step, value, is_nan, timestamp FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp",
                (row["run_uuid"], name),
            )
            points = ((int(v[0]), _value(v[1], v[2]), None, v[3] / 1000) for v in values)
            _add_curve(run, str(name), curve_of(points, started_s=started))
    except (TypeError, ValueError, OverflowError) as error:
        return SkippedRecord(f"has values that are no numbers ({type(error).__name__})", identity)
    return run


def _value(value: float, is_nan: Any) -> float:
    if is_nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else float(value)


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) and 0 < milliseconds < 2e13 else None


def _new_run(identity: str, names: tuple[str, str], name: str, status: str, moments: tuple[Any, Any]) -> ForeignRun:
    experiment, task = names
    started, ended = map(_seconds, moments)
    if status not in _STATUSES:
        raise UnreadableRecordError("has a status that MLflow does not know")
    return ForeignRun(
        key=(identity,),
        task=task,
        status=_STATUSES[status],
        facts={"experiment": experiment, "run_id": identity, "run_name": name, "state": status.lower()},
        started_utc=utc_text(started),
        ended_utc=utc_text(ended),
        wall_s=None if started is None or ended is None else max(0.0, ended - started),
        order=0 if started is None else datetime.fromtimestamp(started, UTC),
    )


def _server_runs(uri: str, chosen: _Experiments, progress: Progress) -> Iterator[Record]:
    with needed_for("Reading from an MLflow server"):
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    try:
        client = MlflowClient(uri)
        for experiment in _pages(client.search_experiments):
            name = str(experiment.name)
            task = f"{urlsplit(uri).hostname or 'server'}/{name}" if is_default_name(name) else name
            for index, found in enumerate(_pages(client.search_runs, experiment_ids=[experiment.experiment_id])):
                progress(0.5, f"{index + 1} runs of {name}")
                yield _server_run(client, (name, task), found) if chosen.takes(name) else _not_chosen(name)
    except MlflowException as error:
        raise InvalidArgumentError(
            f"An MLflow server must answer, but {redact_text(uri)} did not: {redact_text(str(error))[:300]}"
        ) from error


def _pages(search: Any, **words: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=_PAGE, page_token=token, **words)
        yield from page
        token = page.token
        if not token:
            return


def _server_run(client: Any, names: tuple[str, str], found: Any) -> Record:
    info, data = found.info, found.data
    params: Mapping[str, str] = data.params
    try:
        run = _new_run(str(info.run_id), names, str(info.run_name or ""), str(info.status), (info.start_time, info.end_time))
        run.hparams = {name: value_of_text(value) for name, value in list(params.items())[:_MAX_PARAMS]}
        for name in list(data.metrics)[:_MAX_METRICS]:
            asked = client.get_metric_history(info.run_id, name)
            points = ((item.step, _value(float(item.value), False), None, item.timestamp / 1000) for item in asked)
            _add_curve(run, name, curve_of(points, started_s=_seconds(info.start_time)))
    except (UnreadableRecordError, TypeError, ValueError) as error:
        return SkippedRecord(str(error), str(info.run_id))
    return run
