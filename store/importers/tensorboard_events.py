"""TensorBoard event folders with hyperparameters: of the hparams plugin (``add_hparams``) or of Lightning's ``hparams.yaml``.

The records are cut out of the files here, within bounds and with their checksums checked, and read by TensorBoard's classes (extra
``tensorboard``). A folder with event files is a run; what ``SummaryWriter.add_hparams`` writes into a folder below belongs to the run
above.
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
from store.records import RunStatus

_MAX_RECORD_BYTES = MIB // 4
"""Scalars take some dozens of bytes; larger records are images, graphs and the like."""
_MAX_EVENTS_BYTES = 2**32
_MAX_RECORDS = 20_000_000
_HPARAMS = "_hparams_/"
_PARTS = frozenset({"train", "validation", "val", "eval", "test"})
"""Folders in which Keras and others write the curves of one run on each part of the data."""
_HP_METRIC = "hp_metric"
"""Lightning's placeholder, -1 unless it is logged."""


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
        "log folder; every folder with event files below it is a run",
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
        read: dict[Path, _Events | UnreadableRecordError] = {}
        for index, (place, paths) in enumerate(folders.items()):
            report(index)
            try:
                read[place] = _events(paths, protos)
            except UnreadableRecordError as error:
                read[place] = error
        yield from _runs(read, folder)


@dataclass(slots=True)
class _Events:
    """The event files of one folder."""

    names: list[str]
    points: dict[str, list[Point]] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    status: RunStatus | None = None
    first_s: float = math.inf
    last_s: float = -math.inf
    n_damaged: int = 0


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


def _events(paths: list[Path], protos: tuple[Any, Any]) -> _Events:
    make_event, make_plugin = protos
    found = _Events([path.name for path in paths])
    for path in paths:
        for data in _records(path):
            if data is None:
                found.n_damaged += 1
                continue
            try:
                _take(found, make_event.FromString(data), make_plugin)
            except MemoryError:
                raise
            except Exception:  # protobuf's DecodeError is of its own kind; the record is left out and counted
                found.n_damaged += 1
    return found


def _take(found: _Events, event: Any, make_plugin: Any) -> None:
    if event.wall_time > 0:
        found.first_s, found.last_s = min(found.first_s, event.wall_time), max(found.last_s, event.wall_time)
    for value in event.summary.value:
        if value.tag.startswith(_HPARAMS):
            _take_hparams(found, make_plugin.FromString(value.metadata.plugin_data.content))
            continue
        number = _scalar(value)
        if number is not None and (value.tag in found.points or len(found.points) < 2 * MAX_METRICS):
            gather(found.points, value.tag[:200], (event.step, number, None, event.wall_time))


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


def _take_hparams(found: _Events, plugin: Any) -> None:
    kind = plugin.WhichOneof("data")
    if kind == "session_start_info":
        found.group = plugin.session_start_info.group_name[:200]
        for name, value in plugin.session_start_info.hparams.items():
            which = value.WhichOneof("kind")
            held = None if which is None else getattr(value, which)
            # the plugin knows only floating-point numbers: 64.0 was 64
            found.hparams[name] = int(held) if isinstance(held, float) and held.is_integer() and abs(held) < 2**53 else held
    elif kind == "session_end_info":
        outcomes = {2: RunStatus.FAILED, 3: RunStatus.RUNNING}
        found.status = outcomes.get(plugin.session_end_info.status)


def _runs(read: dict[Path, _Events | UnreadableRecordError], root: Path) -> Iterator[Record]:
    """Put the folders that ``add_hparams`` made to the runs above them, and yield the runs."""
    merged: dict[Path, _Events] = {}
    for place, found in read.items():
        if isinstance(found, _Events) and place.name in _PARTS and not found.hparams and place != root:
            whole = merged.setdefault(place.parent, _Events([f"{place.name}/{name}" for name in found.names]))
            whole.points |= {f"{place.name}/{tag}": points for tag, points in found.points.items()}
            whole.first_s, whole.last_s = min(whole.first_s, found.first_s), max(whole.last_s, found.last_s)
            whole.n_damaged += found.n_damaged
            continue
        above = merged.get(place.parent)
        if isinstance(found, UnreadableRecordError):
            yield SkippedRecord(str(found), f"{place.parent.name}/{place.name}")
        elif above is not None and not above.hparams and found.hparams:
            above.hparams, above.status = found.hparams, found.status
            for tag, points in found.points.items():
                above.points.setdefault(tag, points)
        elif above is not None and not found.hparams and len(found.points) and _is_side_writer(place, found):
            for tag, points in found.points.items():
                above.points.setdefault(f"{tag}/{place.name.rpartition('_')[2]}", points)
        else:
            merged[place] = found
    for place, found in merged.items():
        yield _run(place, found, root)


def _is_side_writer(place: Path, found: _Events) -> bool:
    """Say whether a folder is one that ``SummaryWriter.add_scalars`` makes: one for each curve, named after the curve."""
    return len(found.points) == 1 and place.name.startswith(next(iter(found.points)).replace("/", "_"))


def _run(place: Path, found: _Events, root: Path) -> Record:
    where = f"{place.parent.name}/{place.name}"
    if found.n_damaged and not found.points:
        return SkippedRecord("an event file is damaged, or none", where)
    try:
        hparams = found.hparams or read_hparams(place)
    except UnreadableRecordError as error:
        return SkippedRecord(str(error), where)
    started = found.first_s if math.isfinite(found.first_s) else None
    curves = {}
    epochs = {step: value for step, value, *_ in found.points.get("epoch", [])}
    for tag, points in found.points.items():
        if tag == "epoch" or (tag == _HP_METRIC and all(value == -1 for _, value, *_ in points)):
            continue
        curve = curve_of(((step, value, epochs.get(step), time) for step, value, _, time in points), started_s=started)
        if curve is not None:
            curves[tag] = curve
    if not curves and not hparams:
        return SkippedRecord("has neither scalars nor hyperparameters", where, is_bad=False)
    facts = {"folder": where, **({"damaged_records": found.n_damaged} if found.n_damaged else {})}
    reached = [value for value in epochs.values() if math.isfinite(value)]
    return ForeignRun(
        key=(place.name, min(found.names)),  # the name of an event file holds the moment, the host and the process
        task=task_of(place, root),
        hparams=hparams,
        curves=curves,
        status=found.status,
        facts=facts,
        started_utc=utc_text(started),
        ended_utc=utc_text(found.last_s),
        wall_s=None if started is None else max(0.0, found.last_s - started),
        epochs_reached=max(reached) + 1 if reached else None,
        order=0 if started is None or not 0 < started < 2e10 else datetime.fromtimestamp(started, UTC),
    )
