"""Lightning's ``CSVLogger`` folders: ``metrics.csv`` and ``hparams.yaml`` of each version. Neither records whether a run has ended."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from store.errors import InvalidArgumentError
from store.importers.bounded_files import MIB, UnreadableRecordError, csv_rows, existing, files_below, read_text, written_utc
from store.importers.foreign import ForeignRun, Point, Progress, Record, SkippedRecord, curve_of, flattened, gather, number_of
from store.importers.pipeline import counted
from store.importers.registry import About
from store.importers.yaml_text import parse_yaml_mapping

METRICS, HPARAMS = "metrics.csv", "hparams.yaml"
_MAX_METRICS_BYTES = 256 * MIB
_DEFAULT_NAMES = frozenset({"lightning_logs", "runs"})
"""What loggers call an unnamed folder: the task is then the folder above."""


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
                yield _run(path, folder)
            except UnreadableRecordError as error:
                yield SkippedRecord(str(error), f"{path.parent.parent.name}/{path.parent.name}")


def task_of(folder: Path, root: Path) -> str:
    """Return the task of a run: the name of the folder it lies in, or of the one above where that is a logger's default.

    Args:
        folder: The folder of one run.
        root: The folder that was given; a run that is given alone is called after itself.
    """
    is_version = re.fullmatch(r"version_\d+", folder.name) is not None
    together = folder.parent if is_version or folder != root else folder
    if together.name in _DEFAULT_NAMES and together.parent.name:
        return together.parent.name
    return together.name or "runs"


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


def _run(path: Path, root: Path) -> Record:
    folder = path.parent
    points: dict[str, list[Point]] = {}
    first: list[tuple[str, str]] = []
    last_epoch = None
    for row in csv_rows(read_text(path, _MAX_METRICS_BYTES)):
        first = first or sorted((name, text) for name, text in row.items() if text and name)
        step, epoch = number_of(row.get("step")), number_of(row.get("epoch"))
        if step is None or not math.isfinite(step):
            raise UnreadableRecordError("metrics.csv has rows without a step")
        last_epoch = epoch if epoch is not None and math.isfinite(epoch) else last_epoch
        for name, value in _values(row):
            gather(points, name, (int(step), value, epoch, None))
    hparams = read_hparams(folder)
    if not points and not hparams:
        return SkippedRecord("has neither metrics nor hyperparameters", f"{folder.parent.name}/{folder.name}", is_bad=False)
    curves = {name: curve for name, values in points.items() if (curve := curve_of(values)) is not None}
    # A folder has no id. Its name, its configuration and what it logged first stay the same while it grows, wherever it is moved.
    digest = hashlib.sha256(repr((sorted(hparams.items(), key=lambda item: item[0]), first)).encode()).hexdigest()[:16]
    return ForeignRun(
        key=(folder.parent.name, folder.name, digest),
        task=task_of(folder, root),
        hparams=hparams,
        curves=curves,
        facts={"folder": f"{folder.parent.name}/{folder.name}"},
        started_utc=written_utc(path),
        batch="per-device",
        epochs_reached=None if last_epoch is None else last_epoch + 1,
        order=version_of(folder),
    )


def _values(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        if name in {"step", "epoch", ""} or text in {"", None}:
            continue
        value = number_of(text)
        if value is not None:
            yield name, value
