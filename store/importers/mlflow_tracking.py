"""MLflow runs: an ``mlruns`` folder or a SQLite file, read as they lie; or a tracking server, through MLflow's client (extra ``import``).

Formats: ``mlflow/store/tracking/file_store.py`` (a folder for each run; ``metrics/<name>`` holds lines of timestamp, value and step) and
``mlflow/store/tracking/dbmodels/models.py``.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from store.errors import InvalidArgumentError
from store.extras import needed_for
from store.importers.bounded_files import MIB, UnreadableRecordError, existing, read_text, sqlite_address, sqlite_path
from store.importers.foreign import MAX_METRICS, ForeignRun, Point, Progress, Record, SkippedRecord, curve_of, utc_text, value_of_text
from store.importers.pipeline import counted
from store.importers.registry import About
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
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class MlflowSource:
    """Runs of MLflow.

    Attributes:
        place: An ``mlruns`` folder, a SQLite file, or a tracking URI (``http://...``, ``sqlite:///...``, ``file:///...``).
    """

    place: str
    kind: ClassVar[str] = "mlflow"
    about: ClassVar = About(
        "MLflow runs of all experiments",
        "parameters with their types, metrics with step and time, status, start and end",
        "PLACE",
        "mlruns folder, SQLite file, or tracking URI",
        "mlruns --objective val_loss",
        "`import` for a server",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the runs of all experiments.

        Raises:
            InvalidArgumentError: If there is no such place, or it is none of MLflow's.
            MissingDependencyError: If MLflow is needed and missing.
        """
        scheme, separator, rest = self.place.partition("://")
        if scheme.partition("+")[0] == "sqlite":
            return _database_runs(existing(sqlite_path(rest), "MLflow's SQLite file"), progress)
        if self.place.startswith("file:"):
            return self._local(unquote(urlsplit(self.place).path), progress)
        if separator or self.place.startswith("databricks"):
            return _server_runs(self.place, progress)
        return self._local(self.place, progress)

    def _local(self, place: str, progress: Progress) -> Iterator[Record]:
        path = existing(place, "an mlruns folder or MLflow's SQLite file")
        if path.is_file():
            return _database_runs(path, progress)
        if (path / "mlruns").is_dir() and not (path / "meta.yaml").exists():
            path = path / "mlruns"
        return _folder_runs(path, progress)


def _folder_runs(folder: Path, progress: Progress) -> Iterator[Record]:
    metas = sorted(folder.glob("*/*/meta.yaml")) or sorted(folder.glob("*/meta.yaml"))
    runs = [meta for meta in metas if (meta.parent / "metrics").is_dir() or (meta.parent / "params").is_dir()]
    if not runs and not metas:
        raise InvalidArgumentError(f"A source must be an mlruns folder, but {str(folder)!r} has no runs of MLflow. Give the folder itself.")
    names: dict[Path, str] = {}
    report = counted(progress, len(runs), "runs")
    for index, meta in enumerate(runs):
        report(index)
        try:
            yield _folder_run(meta, names)
        except UnreadableRecordError as error:
            yield SkippedRecord(str(error), meta.parent.name)


def _folder_run(meta: Path, names: dict[Path, str]) -> Record:
    about = parse_yaml_mapping(read_text(meta, MIB))
    folder, experiment = meta.parent, meta.parent.parent
    if about.get("lifecycle_stage") == "deleted":
        return SkippedRecord(_DELETED, folder.name, is_bad=False)
    if experiment not in names:
        names[experiment] = _experiment_name(experiment)
    status = about.get("status", "")
    run = _new_run(
        str(about.get("run_id") or about.get("run_uuid") or folder.name)[:64],
        names[experiment],
        str(about.get("run_name") or ""),
        _STATUS_NUMBERS.get(status, "") if isinstance(status, int) else str(status),
        (about.get("start_time"), about.get("end_time")),
    )
    for name, file in _named_files(folder / "params", _MAX_PARAMS):
        run.hparams[name] = value_of_text(read_text(file, MIB).rstrip("\n"))
    for name, file in _named_files(folder / "metrics", MAX_METRICS):
        curve = curve_of(_metric_lines(read_text(file, _MAX_METRIC_BYTES)), started_s=_seconds(about.get("start_time")))
        if curve is not None:
            run.curves[name] = curve
    return run


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


def _database_runs(path: Path, progress: Progress) -> Iterator[Record]:
    try:
        with closing(sqlite3.connect(sqlite_address(path), uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"experiments", "runs", "params", "metrics"} <= tables:
                raise InvalidArgumentError(f"A source must be MLflow's database, but {str(path)!r} lacks its tables. Give the right file.")
            query = (
                "SELECT r.*, e.name AS experiment FROM runs AS r JOIN experiments AS e USING (experiment_id) "
                "ORDER BY r.start_time, r.run_uuid"
            )
            rows = connection.execute(query).fetchall()
            report = counted(progress, len(rows), "runs")
            for index, row in enumerate(rows):
                report(index)
                yield _database_run(connection, row)
    except sqlite3.Error as error:
        raise InvalidArgumentError(f"A source must be MLflow's database, but {str(path)!r} cannot be read as one: {error}.") from error


def _database_run(connection: sqlite3.Connection, row: sqlite3.Row) -> Record:
    identity = str(row["run_uuid"])[:64]
    if row["lifecycle_stage"] == "deleted":
        return SkippedRecord(_DELETED, identity, is_bad=False)
    try:
        run = _new_run(identity, str(row["experiment"]), str(row["name"] or ""), str(row["status"]), (row["start_time"], row["end_time"]))
        params = connection.execute("SELECT key, value FROM params WHERE run_uuid = ? LIMIT ?", (row["run_uuid"], _MAX_PARAMS))
        run.hparams = {str(name): value_of_text(str(value)) for name, value in params}
        names = connection.execute("SELECT DISTINCT key FROM metrics WHERE run_uuid = ? LIMIT ?", (row["run_uuid"], MAX_METRICS)).fetchall()
        started = _seconds(row["start_time"])
        for (name,) in names:
            values = connection.execute(
                "SELECT step, value, is_nan, timestamp FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp",
                (row["run_uuid"], name),
            )
            curve = curve_of(((int(v[0]), _value(v[1], v[2]), None, v[3] / 1000) for v in values), started_s=started)
            if curve is not None:
                run.curves[str(name)] = curve
    except (TypeError, ValueError, OverflowError) as error:
        return SkippedRecord(f"has values that are no numbers ({type(error).__name__})", identity)
    return run


def _value(value: float, is_nan: Any) -> float:
    if is_nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else float(value)


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) and 0 < milliseconds < 2e13 else None


def _new_run(identity: str, experiment: str, name: str, status: str, moments: tuple[Any, Any]) -> ForeignRun:
    started, ended = map(_seconds, moments)
    if status not in _STATUSES:
        raise UnreadableRecordError("has a status that MLflow does not know")
    return ForeignRun(
        key=(identity,),
        task=experiment,
        status=_STATUSES[status],
        facts={"experiment": experiment, "run_id": identity, "run_name": name, "state": status.lower()},
        started_utc=utc_text(started),
        ended_utc=utc_text(ended),
        wall_s=None if started is None or ended is None else max(0.0, ended - started),
        order=0 if started is None else datetime.fromtimestamp(started, UTC),
    )


def _server_runs(uri: str, progress: Progress) -> Iterator[Record]:
    with needed_for("Reading from an MLflow server"):
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    try:
        client = MlflowClient(uri)
        for experiment in _pages(client.search_experiments):
            for index, found in enumerate(_pages(client.search_runs, experiment_ids=[experiment.experiment_id])):
                progress(0.5, f"{index + 1} runs of {experiment.name}")
                yield _server_run(client, experiment.name, found)
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


def _server_run(client: Any, experiment: str, found: Any) -> Record:
    info, data = found.info, found.data
    params: Mapping[str, str] = data.params
    try:
        run = _new_run(str(info.run_id), experiment, str(info.run_name or ""), str(info.status), (info.start_time, info.end_time))
        run.hparams = {name: value_of_text(value) for name, value in list(params.items())[:_MAX_PARAMS]}
        curves: dict[str, Curve | None] = {}
        for name in list(data.metrics)[:MAX_METRICS]:
            asked = client.get_metric_history(info.run_id, name)
            points = ((item.step, _value(float(item.value), False), None, item.timestamp / 1000) for item in asked)
            curves[name] = curve_of(points, started_s=_seconds(info.start_time))
        run.curves = {name: curve for name, curve in curves.items() if curve is not None}
    except (UnreadableRecordError, TypeError, ValueError) as error:
        return SkippedRecord(str(error), str(info.run_id))
    return run
