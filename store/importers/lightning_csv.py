"""Lightning's ``CSVLogger`` folders: ``metrics.csv`` and ``hparams.yaml`` of each version. Neither records whether a run has ended."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from store.errors import InvalidArgumentError
from store.importers.bounded_files import MIB, UnreadableRecordError, csv_rows, existing, files_below, read_text, written_utc
from store.importers.foreign import ForeignRun, Point, Progress, Record, SkippedRecord, SourceNote, curve_of, flattened, gather, number_of
from store.importers.pipeline import counted
from store.importers.registry import About
from store.importers.sessions import SessionSplitter
from store.importers.task_names import task_of_folder
from store.importers.yaml_text import parse_yaml_mapping

METRICS, HPARAMS = "metrics.csv", "hparams.yaml"
_MAX_METRICS_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class LightningSource:
    """Runs that ``CSVLogger`` wrote.

    Attributes:
        place: A folder; every ``metrics.csv`` below it is a run.
    """

    place: str
    kind: ClassVar[str] = "lightning"
    about: ClassVar = About(
        "runs of Lightning's CSVLogger",
        "metrics.csv and hparams.yaml of each version",
        "FOLDER",
        "folder of CSVLogger, or one with several",
        "lightning_logs --objective val_loss --task digits",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the runs.

        Raises:
            InvalidArgumentError: If there is no folder, or no run in it.
        """
        folder = existing(self.place, "a folder of CSVLogger")
        files = [folder] if folder.name == METRICS else [path for path in files_below(folder) if path.name == METRICS]
        if not files:
            raise InvalidArgumentError(
                f"A folder of CSVLogger must hold {METRICS} somewhere, but {str(folder)!r} holds none. Runs logged to TensorBoard are "
                "imported with 'metahp import tensorboard'."
            )
        report = counted(progress, len(files), "runs", every=1)
        for index, path in enumerate(files):
            report(index)
            try:
                yield from _runs(path, folder)
            except UnreadableRecordError as error:
                yield SkippedRecord(str(error), f"{path.parent.parent.name}/{path.parent.name}")


def task_of(folder: Path, root: Path) -> str:
    """Return the task of a run: the name of the folder it lies in, or of the first one above whose name is no default one.

    Args:
        folder: The folder of one run.
        root: The folder that was given; a run that is given alone is called after itself.
    """
    is_version = re.fullmatch(r"version_\d+", folder.name) is not None
    return task_of_folder(folder.parent if is_version or folder != root else folder)


def read_hparams(folder: Path) -> dict[str, Any]:
    """Return the hyperparameters of a logger's folder, nested names joined with dots; empty where it has none.

    Raises:
        UnreadableRecordError: If the file is damaged.
    """
    path = folder / HPARAMS
    if not path.exists():
        return {}
    text = read_text(path, MIB)
    if text.strip() in {"", "{}"}:
        return {}
    return {name: value for name, value in flattened(parse_yaml_mapping(text)).items() if not isinstance(value, list) or len(value) <= 20}


def version_of(folder: Path) -> int:
    """Return the number at the end of a folder's name, 0 where there is none."""
    found = re.search(r"(\d{1,8})$", folder.name)
    return int(found.group(1)) if found else 0


@dataclass(slots=True)
class _Session:
    """A run in one metrics.csv: its steps begin anew where a logger was used again."""

    points: dict[str, list[Point]] = field(default_factory=dict)
    first: list[tuple[str, str]] = field(default_factory=list)
    last_epoch: float | None = None


def _sessions(path: Path) -> list[_Session]:
    sessions = [_Session()]
    splitter: SessionSplitter[tuple[str, Point]] = SessionSplitter()

    def keep(taken: Iterator[tuple[int, tuple[str, Point]]]) -> None:
        for number, (name, point) in taken:
            while len(sessions) <= number:
                sessions.append(_Session())
            gather(sessions[number].points, name, point)
            if point[2] is not None and math.isfinite(point[2]):
                sessions[number].last_epoch = point[2]

    for row in csv_rows(read_text(path, _MAX_METRICS_BYTES)):
        sessions[0].first = sessions[0].first or sorted((name, text) for name, text in row.items() if text and name)
        step, epoch = number_of(row.get("step")), number_of(row.get("epoch"))
        if step is None or not math.isfinite(step):
            raise UnreadableRecordError("metrics.csv has rows without a step")
        for name, value in _values(row):
            keep(splitter.add(name, int(step), (name, (int(step), value, epoch, None))))
    keep(splitter.rest())
    return sessions


def _runs(path: Path, root: Path) -> Iterator[Record]:
    folder = path.parent
    where = f"{folder.parent.name}/{folder.name}"
    sessions, hparams = _sessions(path), read_hparams(folder)
    if not sessions[0].points and not hparams:
        yield SkippedRecord("has neither metrics nor hyperparameters", where, is_bad=False)
        return
    if len(sessions) > 1 and hparams:
        yield SourceNote(f"{where!r} holds {len(sessions)} runs, but hyperparameters of the last one only: the others come without any")
    # A folder has no id. Its name, its configuration and what it logged first stay the same while it grows, wherever it is moved.
    digest = hashlib.sha256(repr((sorted(hparams.items(), key=lambda item: item[0]), sessions[0].first)).encode()).hexdigest()[:16]
    for number, session in enumerate(sessions):
        yield ForeignRun(
            key=(folder.parent.name, folder.name, digest, *([str(number)] if number else [])),
            task=task_of(folder, root),
            hparams=hparams if session is sessions[-1] else {},
            curves={name: curve for name, values in session.points.items() if (curve := curve_of(values)) is not None},
            facts={"folder": where, **({"part": number + 1} if len(sessions) > 1 else {})},
            started_utc=written_utc(path),
            batch="per-device",
            epochs_reached=None if session.last_epoch is None else session.last_epoch + 1,
            order=version_of(folder),
        )


def _values(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        if name in {"step", "epoch", ""} or text in {"", None}:
            continue
        value = number_of(text)
        if value is not None:
            yield name, value
