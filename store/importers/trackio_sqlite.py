"""Trackio's SQLite files, one for each project: configurations and values as JSON, ``trackio/sqlite_storage.py``.

Trackio does not record whether a run has ended. Its files lie in ``$TRACKIO_DIR``, by default ``~/.cache/huggingface/trackio``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from store.errors import InvalidArgumentError
from store.importers.bounded_files import MIB, UnreadableRecordError, existing, json_object, sqlite_address
from store.importers.foreign import (
    MAX_METRICS,
    ForeignRun,
    Point,
    Progress,
    Record,
    SkippedRecord,
    curve_of,
    flattened,
    gather,
    moment_of,
    number_of,
    part_of,
    utc_of,
)
from store.importers.pipeline import counted
from store.importers.registry import About

_OWN = ("_Username", "_Created", "_Group")
"""What Trackio adds to every configuration."""


@dataclass(frozen=True, slots=True)
class TrackioSource:
    """Runs of Trackio.

    Attributes:
        place: A project's file, or the folder of all projects.
    """

    place: str
    kind: ClassVar[str] = "trackio"
    about: ClassVar = About(
        "Trackio projects",
        "configuration and values of each run",
        "PLACE",
        "SQLite file of a project, or Trackio's folder",
        "~/.cache/huggingface/trackio/digits.db --objective val_acc",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the runs.

        Raises:
            InvalidArgumentError: If there is no such file, or it is none of Trackio's.
        """
        path = existing(self.place, "a project's file, or Trackio's folder")
        files = sorted(item for item in path.glob("*.db") if not item.is_symlink()) if path.is_dir() else [path]
        if not files:
            raise InvalidArgumentError(f"A folder of Trackio must hold files ending in .db, but {str(path)!r} holds none. Check the path.")
        for index, file in enumerate(files):
            try:
                yield from _project(file, part_of(progress, index / len(files), 1 / len(files)))
            except sqlite3.Error as error:
                if len(files) == 1:
                    raise InvalidArgumentError(f"A source must be a file of Trackio, but {str(file)!r} is none: {error}.") from error
                yield SkippedRecord("is a file that SQLite cannot read", file.name)


def _project(file: Path, progress: Progress) -> Iterator[Record]:
    with closing(sqlite3.connect(sqlite_address(file), uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        columns = {row["name"] for row in connection.execute("PRAGMA table_info(metrics)")}
        if not {"run_name", "step", "metrics", "timestamp"} <= columns:
            raise InvalidArgumentError(f"A source must be a file of Trackio, but {str(file)!r} lacks its tables. Give the right file.")
        identity = "run_id" if "run_id" in columns else "run_name"  # the first versions knew runs by their names
        has_configs = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'configs'").fetchone() is not None
        also = f" UNION SELECT {identity}, max(run_name) FROM configs GROUP BY 1" if has_configs else ""
        query = f"SELECT {identity}, max(run_name) FROM metrics GROUP BY 1{also} ORDER BY 1"
        runs = {str(row[0]): str(row[1]) for row in connection.execute(query)}
        report = counted(progress, len(runs), f"runs of {file.stem}")
        for index, (run_id, name) in enumerate(runs.items()):
            report(index)
            yield _run(connection, file.stem, identity, run_id, name, has_configs)


def _run(connection: sqlite3.Connection, project: str, identity: str, run_id: str, name: str, has_configs: bool) -> Record:
    rows = connection.execute(f"SELECT step, metrics, timestamp FROM metrics WHERE {identity} = ? ORDER BY step, id", (run_id,))
    points: dict[str, list[Point]] = {}
    moments: list[datetime] = []
    n_bad = 0
    for row in rows:
        values, moment = _json_object(row["metrics"]), _moment(row["timestamp"])
        if values is None or not isinstance(row["step"], int):
            n_bad += 1
            continue
        if moment is not None:
            moments = [min([moment, *moments[:1]]), max([moment, *moments[1:]])]
        for metric, value in values.items():
            number = number_of(value)  # Trackio writes NaN and infinities as texts
            if number is not None and (metric in points or len(points) < MAX_METRICS):
                gather(points, metric[:200], (row["step"], number, None, None if moment is None else moment.timestamp()))
    config: dict[str, Any] = {}
    if has_configs:
        found = connection.execute(f"SELECT config FROM configs WHERE {identity} = ?", (run_id,)).fetchone()
        config = (None if found is None else _json_object(found["config"])) or {}
    if not points and n_bad:
        return SkippedRecord("has values that are not JSON", f"{project}/{name}")
    started = _moment(config.get("_Created")) or (moments[0] if moments else None)
    ended = moments[-1] if moments else None
    since = None if started is None else started.timestamp()
    curves = {metric: curve for metric, values in points.items() if (curve := curve_of(values, started_s=since)) is not None}
    group = config.get("_Group")
    return ForeignRun(
        key=(project, run_id),
        task=project,
        hparams=flattened({key: value for key, value in config.items() if key not in _OWN}),
        curves=curves,
        facts={"project": project, "run_name": name, **({"group": group} if group else {}), **({"damaged_rows": n_bad} if n_bad else {})},
        started_utc=utc_of(started),
        ended_utc=utc_of(ended),
        wall_s=None if started is None or ended is None else max(0.0, (ended - started).total_seconds()),
        order=0 if started is None else started.astimezone(UTC),
    )


def _json_object(text: Any) -> dict[str, Any] | None:
    try:
        return json_object(text) if isinstance(text, str | bytes) and len(text) <= MIB else None
    except UnreadableRecordError:
        return None


def _moment(text: Any) -> datetime | None:
    moment = moment_of(text)
    if moment is None or not 1971 <= moment.year <= 2500:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
