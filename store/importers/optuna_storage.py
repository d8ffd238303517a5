"""Optuna studies: any storage address or journal file, read through Optuna's storages.

The outcome of a trial is the value that it returned, of a pruned one the value that Optuna gave it; never an intermediate one.
A SQLite file is copied first and the copy is opened: Optuna creates tables where it finds none and may have to upgrade the schema, and
neither must happen to the user's file. Journals in Redis hold pickled snapshots and are refused.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from store.errors import InvalidArgumentError, MetaHPError
from store.importers.bounded_files import existing, sqlite_address, sqlite_path
from store.importers.foreign import ForeignRun, Progress, Record, SkippedRecord, curve_of, part_of, utc_of
from store.importers.mapping import shortened
from store.importers.pipeline import counted
from store.importers.registry import About, option, words
from store.importers.task_names import unique_name
from store.privacy import redact, redact_text
from store.records import RunStatus
from store.sqlite.bulk import Curve

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

OBJECTIVE = "objective"
"""Name of an objective without a name."""
_MAX_JOURNAL_BYTES = 2**31
_SAME_QUANTITY = 0.9
"""Share of the completed trials whose value must be their last or best intermediate one for both to be one learning curve."""


@dataclass(frozen=True, slots=True)
class OptunaSource:
    """Studies of an Optuna storage.

    Attributes:
        place: Storage address (``sqlite:///study.db``, ``postgresql://...``), or the path of a SQLite or journal file.
        studies: Names of those to read; empty: all.
    """

    place: str
    studies: Collection[str] = option("--study", "LIST", "Only these studies; default: all.", parse=words, default=())
    kind: ClassVar[str] = "optuna"
    about: ClassVar = About(
        "Optuna studies",
        "each trial with parameters, state, direction and intermediate values as its curve; the task keeps the distributions",
        "STORAGE",
        "address (sqlite:///study.db), SQLite or journal file",
        "sqlite:///study.db --dry-run",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the trials.

        Raises:
            InvalidArgumentError: If there is no such storage or study, or it cannot be read.
        """
        with _opened(self.place) as storage:
            found = storage.get_all_studies()
            missing = [name for name in self.studies if name not in {study.study_name for study in found}]
            if missing:
                names = shortened(study.study_name for study in found) or "none"
                raise InvalidArgumentError(f"A study must be in the storage, but there is no {missing[0]!r}; it has: {names}.")
            chosen = [study for study in found if not self.studies or study.study_name in self.studies]
            for index, study in enumerate(chosen):
                yield from _trials(storage, study, self._task(study.study_name), part_of(progress, index / len(chosen), 1 / len(chosen)))

    def _task(self, study: str) -> str:
        """Return the task of a study: a default name of a study in a file gets the file's folder in front."""
        scheme, _, rest = self.place.partition("://")
        path = sqlite_path(rest) if scheme.startswith("sqlite") else "" if rest else self.place
        return unique_name(study, existing(path, "the storage")) if path else study


def _trials(storage: BaseStorage, study: FrozenStudy, task: str, progress: Progress) -> Iterator[Record]:
    from optuna.trial import TrialState

    trials = storage.get_all_trials(study._study_id, deepcopy=False)
    names = _objectives(storage, study)
    directions = [direction.name.lower()[:3] for direction in study.directions]
    separate = len(names) > 1 or not _is_learning_curve(trials)
    first = min((trial.datetime_start for trial in trials if trial.datetime_start is not None), default=None)
    report = counted(progress, len(trials), f"trials of {study.study_name}")
    for trial in trials:
        report(trial.number)
        if trial.state is TrialState.WAITING:
            yield SkippedRecord("waits to be started", f"{study.study_name}/{trial.number}", is_bad=False)
            continue
        try:
            run = _run(study, trial, names, directions, separate)
        except (TypeError, ValueError, OverflowError, AttributeError, KeyError) as error:
            logger.debug("trial %s of %r: %s", trial.number, study.study_name, error)
            yield SkippedRecord("is a trial with values that cannot be read", f"{study.study_name}/{trial.number}")
            continue
        run.task = task
        run.key = (study.study_name, "" if first is None else first.isoformat(), str(trial.number))
        yield run


def _objectives(storage: BaseStorage, study: FrozenStudy) -> list[str]:
    """Return what the study optimises, by the names the user gave (``study.set_metric_names``)."""
    given = storage.get_study_system_attrs(study._study_id).get("study:metric_names")
    if isinstance(given, list) and len(given) == len(study.directions):
        return [str(name) for name in given]
    return [OBJECTIVE] if len(study.directions) == 1 else [f"{OBJECTIVE}_{index}" for index in range(len(study.directions))]


def _is_learning_curve(trials: Sequence[FrozenTrial]) -> bool:
    """Say whether the intermediate values lead to what a trial returns, its last or its best; the scores of folds do not."""
    pairs = [
        (trial.values[0], values)
        for trial in trials  # to a pruned one Optuna gives its last intermediate value
        if trial.values
        and trial.state.name == "COMPLETE"
        and (values := [value for _, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)])
    ]
    if not pairs:
        return True
    n_same = 0
    for value, values in pairs:
        n_same += any(math.isclose(value, known, rel_tol=1e-6, abs_tol=1e-12) for known in (values[-1], max(values), min(values)))
    return n_same >= _SAME_QUANTITY * len(pairs)


def _run(study: FrozenStudy, trial: FrozenTrial, names: list[str], directions: list[str], separate: bool) -> ForeignRun:
    from optuna.distributions import distribution_to_json
    from optuna.trial import TrialState

    statuses = {TrialState.COMPLETE: None, TrialState.PRUNED: RunStatus.STOPPED, TrialState.FAIL: RunStatus.FAILED}
    status = statuses.get(trial.state, RunStatus.RUNNING)
    return ForeignRun(
        key=(),
        task=study.study_name,
        hparams=dict(trial.params),
        curves=_curves(trial, names, separate),
        outcomes=_outcomes(trial, names),
        status=status,
        objective=names[0] if len(names) == 1 else None,
        direction=directions[0] if len(names) == 1 else None,
        distributions={name: json.loads(distribution_to_json(kind)) for name, kind in trial.distributions.items()},
        facts={"study": study.study_name, "trial": trial.number, "state": trial.state.name.lower(), **_notes(trial)},
        started_utc=utc_of(trial.datetime_start),
        ended_utc=utc_of(trial.datetime_complete),
        wall_s=None if trial.duration is None else trial.duration.total_seconds(),
        error=str(trial.system_attrs["fail_reason"]) if "fail_reason" in trial.system_attrs else None,
        # as the tool wrote it, without a zone: the id must not depend on where the storage is read
        order=trial.number if trial.datetime_start is None else trial.datetime_start.replace(tzinfo=UTC),
    )


def _notes(trial: FrozenTrial) -> dict[str, Any]:
    """Return what the user noted of a trial. As often as not these are results: they are kept with the run, not learned from."""
    noted = {
        name[:100]: redact(value, name)
        for name, value in list(trial.user_attrs.items())[:100]
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 200)
    }
    return {"user_attrs": noted} if noted else {}


def _curves(trial: FrozenTrial, names: list[str], separate: bool) -> dict[str, Curve]:
    points = [(int(step), float(value), None, None) for step, value in sorted(trial.intermediate_values.items())]
    curves: dict[str, Curve | None] = {}
    if separate:
        curves["intermediate"] = curve_of(points)
        last = points[-1][0] if points else 0
        for name, value in zip(names, trial.values or (), strict=False):
            curves[name] = curve_of([(last, float(value), None, None)])
    else:
        value = trial.values[0] if trial.values else None
        if value is not None and (not points or points[-1][1] != value):
            points.append((points[-1][0] + 1 if points else 0, float(value), None, None))
        curves[names[0]] = curve_of(points)
    return {name: curve for name, curve in curves.items() if curve is not None}


def _outcomes(trial: FrozenTrial, names: list[str]) -> dict[str, Curve]:
    """Return name -> the trial's own value; none for a trial that has none, whatever it reported on the way."""
    last = max(trial.intermediate_values, default=0)
    values = trial.values or ()
    return {name: Curve([last] * len(values[place : place + 1]), list(values[place : place + 1])) for place, name in enumerate(names)}


@contextmanager
def _opened(place: str) -> Iterator[BaseStorage]:
    """Open a storage for reading."""
    scheme, _, rest = place.partition("://")
    if not rest or len(scheme) == 1:
        path = existing(place, "an Optuna storage, or its address (sqlite:///study.db)")
        if path.is_dir():
            raise InvalidArgumentError(f"An Optuna storage must be a file or an address, but {place!r} is a folder. Name the file in it.")
        with path.open("rb") as file:
            is_sqlite = file.read(16) == b"SQLite format 3\0"
        with _sqlite(path) if is_sqlite else _journal(path) as storage:
            yield storage
    elif scheme.partition("+")[0] == "sqlite":
        with _sqlite(existing(sqlite_path(rest), "the SQLite file")) as storage:
            yield storage
    elif scheme.startswith(("redis", "rediss")):
        raise InvalidArgumentError(
            "A journal in Redis holds pickled snapshots, which are never opened here. Copy the study to a file first: "
            "optuna.copy_study(..., to_storage='sqlite:///study.db')."
        )
    else:
        with _database(place, place) as storage:
            yield storage


@contextmanager
def _sqlite(path: Path) -> Iterator[BaseStorage]:
    with tempfile.TemporaryDirectory(prefix="metahp-import-") as folder:
        copy = Path(folder) / "study.db"
        try:
            with closing(sqlite3.connect(sqlite_address(path), uri=True)) as source, closing(sqlite3.connect(copy)) as target:
                tables = {row[0] for row in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if not {"studies", "trials", "alembic_version"} <= tables:
                    raise _unreadable(str(path), "it is a SQLite file without studies")
                source.backup(target)
        except sqlite3.Error as error:
            raise _unreadable(str(path), str(error)) from error
        with _database(f"sqlite:///{copy}", str(path), is_copy=True) as storage:
            yield storage


@contextmanager
def _database(address: str, place: str, *, is_copy: bool = False) -> Iterator[BaseStorage]:
    import optuna

    try:
        storage = optuna.storages.RDBStorage(address, skip_compatibility_check=is_copy, skip_table_creation=True)
        if is_copy and storage.get_current_version() != storage.get_head_version():
            storage.upgrade()
        yield storage
        storage.engine.dispose()
    except (MetaHPError, MemoryError):
        raise
    except Exception as error:  # Optuna, SQLAlchemy, Alembic and every driver each have errors of their own
        raise _unreadable(redact_text(place), redact_text(f"{type(error).__name__}: {error}")) from error


@contextmanager
def _journal(path: Path) -> Iterator[BaseStorage]:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with path.open("rb") as file:
        start = file.read(1)
    if start != b"{" or path.stat().st_size > _MAX_JOURNAL_BYTES:
        raise _unreadable(str(path), "it is neither a SQLite file nor a journal (JSON lines) below 2 GiB")
    with tempfile.TemporaryDirectory(prefix="metahp-import-") as folder:
        copy = shutil.copyfile(path, Path(folder) / "journal.log")
        try:
            yield JournalStorage(JournalFileBackend(str(copy)))
        except MetaHPError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _unreadable(str(path), f"its journal is damaged ({type(error).__name__})") from error


def _unreadable(place: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"A source must be an Optuna storage, but {place!r} cannot be read as one: {' '.join(why.split())[:300]}.")
