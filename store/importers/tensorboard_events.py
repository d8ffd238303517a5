"""TensorBoard event folders with hyperparameters: of the hparams plugin (``add_hparams``) or of Lightning's ``hparams.yaml``.

The records are cut out of the files here, within bounds and with their checksums checked, and read by TensorBoard's classes (extra
``import``). A folder with event files is a run, or several where its steps begin anew (see ``tensorboard_sessions``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from store.errors import InvalidArgumentError
from store.extras import needed_for
from store.importers.bounded_files import MIB, UnreadableRecordError, existing, files_below
from store.importers.foreign import MAX_METRICS, ForeignRun, Point, Progress, Record, SkippedRecord, curve_of, gather, utc_text
from store.importers.lightning_csv import read_hparams, task_of
from store.importers.pipeline import counted
from store.importers.registry import About
from store.importers.sessions import SessionSplitter
from store.importers.tensorboard_sessions import HP_METRIC, NOT_MATCHED, EventSession, merged_sessions
from store.records import RunStatus

_MAX_RECORD_BYTES = MIB // 4
"""Scalars take some dozens of bytes; larger records are images, graphs and the like."""
_MAX_EVENTS_BYTES = 2**32
_MAX_RECORDS = 20_000_000
_MAX_TAGS = 5 * MAX_METRICS
"""Metrics read of one run; of these the objective and the first ones are kept."""
_HPARAMS = "_hparams_/"


@dataclass(frozen=True, slots=True)
class TensorBoardSource:
    """Runs of TensorBoard.

    Attributes:
        place: A log folder; every folder with event files below it is a run.
    """

    place: str
    kind: ClassVar[str] = "tensorboard"
    about: ClassVar = About(
        "TensorBoard runs",
        "scalars; hyperparameters of the hparams plugin (add_hparams) or of a hparams.yaml beside them",
        "FOLDER",
        "log folder; every folder with event files below it is a run, or several where the steps begin anew",
        "runs --objective val/accuracy --explain",
        "`import`",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the runs.

        Raises:
            InvalidArgumentError: If there is no folder, or no event file in it.
            MissingDependencyError: If tensorboard is missing.
        """
        folder = existing(self.place, "a log folder of TensorBoard")
        folders: dict[Path, list[Path]] = {}
        for path in [folder] if folder.is_file() else files_below(folder):
            if "tfevents" in path.name:
                folders.setdefault(path.parent, []).append(path)
        if not folders:
            raise InvalidArgumentError(f"A log folder must hold event files somewhere, but {str(folder)!r} holds none. Check the path.")
        protos = _protos()
        report = counted(progress, len(folders), "runs", every=1)
        read: dict[Path, list[EventSession]] = {}
        for index, (place, paths) in enumerate(folders.items()):
            report(index)
            found: list[EventSession] = []
            for path in paths:
                try:
                    found += _EventFile(path.name, protos[1]).read(path, protos[0])
                except UnreadableRecordError as error:
                    yield SkippedRecord(str(error), f"{place.parent.name}/{place.name}")
            if found:
                read[place] = found
        for place, session, is_only in merged_sessions(read, folder):
            if session is None:
                yield SkippedRecord(NOT_MATCHED, f"{place.parent.name}/{place.name}")
            else:
                yield _run(place, session, folder, is_only=is_only)


def _protos() -> tuple[Any, Any]:
    with needed_for("Reading event files"):
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.hparams import plugin_data_pb2
    return event_pb2.Event, plugin_data_pb2.HParamsPluginData


def _records(path: Path) -> Iterator[bytes | None]:
    """Yield the records of an event file, None for one that is too large or damaged and can be passed over.

    Each is: length (8 bytes), checksum of the length (4), data, checksum of the data (4).

    Raises:
        UnreadableRecordError: If the rest cannot be split into records; a record cut off at the end is none, the run may be going on.
    """
    size = path.stat().st_size
    if size > _MAX_EVENTS_BYTES:
        raise UnreadableRecordError("an event file is larger than 4 GiB")
    with path.open("rb") as file:
        for _ in range(_MAX_RECORDS):
            head = file.read(12)
            if len(head) < 12:
                return
            (length,) = struct.unpack("<Q", head[:8])
            if struct.unpack("<I", head[8:])[0] != _masked_crc(head[:8]):
                raise UnreadableRecordError("an event file is damaged, or none")
            if length + 4 > size - file.tell():
                return
            if length > _MAX_RECORD_BYTES:
                file.seek(length + 4, 1)
                yield None
                continue
            data, check = file.read(length), file.read(4)
            yield data if struct.unpack("<I", check)[0] == _masked_crc(data) else None


def _masked_crc(data: bytes) -> int:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return int(masked_crc32c(data)) & 0xFFFFFFFF


@dataclass(slots=True)
class _EventFile:
    """One event file, put into the runs that it holds."""

    name: str
    plugin: Any
    sessions: list[EventSession] = field(default_factory=list)
    _noted: dict[str, Any] = field(default_factory=dict)
    _splitter: SessionSplitter[tuple[str, Point]] = field(default_factory=SessionSplitter)

    def read(self, path: Path, make_event: Any) -> list[EventSession]:
        """Return the runs."""
        self._begin()
        for data in _records(path):
            try:
                if data is None:
                    self.sessions[-1].n_damaged += 1
                else:
                    self._take(make_event.FromString(data))
            except MemoryError:
                raise
            except Exception:  # protobuf's DecodeError is of its own kind; the record is left out and counted
                self.sessions[-1].n_damaged += 1
        self._keep(self._splitter.rest())
        return self.sessions

    def _begin(self) -> None:
        self.sessions.append(EventSession([self.name], len(self.sessions)))

    def _take(self, event: Any) -> None:
        if not event.summary.value:
            self.sessions[-1].saw(event.wall_time)
        for value in event.summary.value:
            if value.tag.startswith(_HPARAMS):
                self._take_hparams(self.plugin.FromString(value.metadata.plugin_data.content), event.wall_time)
            elif (number := _scalar(value)) is not None:
                tag = value.tag[:200]
                self._keep(self._splitter.add(tag, event.step, (tag, (event.step, number, None, event.wall_time))))

    def _take_hparams(self, plugin: Any, moment_s: float) -> None:
        kind = plugin.WhichOneof("data")
        if kind == "session_start_info":
            hparams = _hparams(plugin)
            if self.sessions[-1].hparams not in ({}, hparams):
                self._keep(self._splitter.begin())
                self._begin()
            self.sessions[-1].hparams |= hparams
            self._noted = hparams  # noted again, they may be those of a run that begins
        elif kind == "session_end_info":
            outcomes = {2: RunStatus.FAILED, 3: RunStatus.RUNNING}
            self.sessions[-1].status = outcomes.get(plugin.session_end_info.status)
        self.sessions[-1].saw(moment_s)

    def _keep(self, taken: Iterator[tuple[int, tuple[str, Point]]]) -> None:
        for number, (tag, point) in taken:
            while len(self.sessions) <= number:
                self._begin()
                self.sessions[-1].hparams |= self._noted
            self._noted = {}
            session = self.sessions[number]
            session.saw(point[3] or 0.0)
            if tag in session.points or len(session.points) < _MAX_TAGS:
                gather(session.points, tag, point)
            else:
                session.more_tags[tag] = None


def _scalar(value: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or (value.metadata.plugin_data.plugin_name not in {"", "scalars"}):
        return None
    tensor = value.tensor
    if any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    for held in (tensor.float_val, tensor.double_val, tensor.int_val, tensor.int64_val):
        if len(held) == 1:
            return float(held[0])
    formats = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}  # numbers of types.proto
    layout = formats.get(tensor.dtype)
    if layout and len(tensor.tensor_content) == struct.calcsize(layout):
        return float(struct.unpack(layout, tensor.tensor_content)[0])
    return None


def _hparams(plugin: Any) -> dict[str, Any]:
    hparams = {}
    for name, value in plugin.session_start_info.hparams.items():
        which = value.WhichOneof("kind")
        held = None if which is None else getattr(value, which)
        # the plugin knows only floating-point numbers: 64.0 was 64
        hparams[name] = int(held) if isinstance(held, float) and held.is_integer() and abs(held) < 2**53 else held
    return hparams


def _run(place: Path, found: EventSession, root: Path, *, is_only: bool) -> Record:
    where = f"{place.parent.name}/{place.name}"
    if found.n_damaged and not found.points:
        return SkippedRecord("an event file is damaged, or none", where)
    try:
        # a hparams.yaml is of one run, and it is not recorded of which
        hparams = found.hparams or (read_hparams(place) if is_only else {})
    except UnreadableRecordError as error:
        return SkippedRecord(str(error), where)
    started = found.first_s if math.isfinite(found.first_s) else None
    curves = {}
    epochs = {step: value for step, value, *_ in found.points.get("epoch", [])}
    for tag, points in found.points.items():
        if tag == "epoch" or (tag == HP_METRIC and all(value == -1 for _, value, *_ in points)):
            continue
        curve = curve_of(((step, value, epochs.get(step), time) for step, value, _, time in points), started_s=started)
        if curve is not None:
            curves[tag] = curve
    if not curves and not hparams:
        return SkippedRecord("has neither scalars nor hyperparameters", where, is_bad=False)
    facts: dict[str, Any] = {"folder": where} | ({} if is_only else {"file": min(found.names)})
    facts |= {"damaged_records": found.n_damaged} if found.n_damaged else {}
    reached = [value for value in epochs.values() if math.isfinite(value)]
    return ForeignRun(
        # the name of an event file holds the moment, the host and the process
        key=(place.name, min(found.names), *([str(found.number)] if found.number else [])),
        task=task_of(place, root),
        hparams=hparams,
        curves=curves,
        more_metrics=tuple(found.more_tags),
        status=found.status,
        facts=facts,
        started_utc=utc_text(started),
        ended_utc=utc_text(found.last_s),
        wall_s=None if started is None else max(0.0, found.last_s - started),
        epochs_reached=max(reached) + 1 if reached else None,
        order=0 if started is None or not 0 < started < 2e10 else datetime.fromtimestamp(started, UTC),
    )
