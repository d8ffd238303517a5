"""HyperparameterHunter's assets, as version 3.0.0 writes them: ``Experiments/Descriptions/*.json``, ``Leaderboards/GlobalLeaderboard.csv``.

Of an experiment whose description is gone, or was never written, the leaderboard still knows the outcome but no hyperparameters.
Format: ``hyperparameter_hunter/recorders.py`` (``DescriptionRecorder``) and ``leaderboards.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, ClassVar

from store.errors import InvalidArgumentError
from store.importers.bounded_files import MIB, UnreadableRecordError, csv_rows, existing, json_object, read_text
from store.importers.foreign import ForeignRun, Progress, Record, SkippedRecord, flattened, moment_of, number_of, utc_of
from store.importers.pipeline import counted
from store.importers.registry import About
from store.sqlite.bulk import Curve

DESCRIPTIONS, LEADERBOARD = Path("Experiments/Descriptions"), Path("Leaderboards/GlobalLeaderboard.csv")
_ASSETS = "HyperparameterHunterAssets"
_MAX_DESCRIPTION_BYTES = 16 * MIB
_PREFERRED = ("oof", "holdout", "in_fold")
"""Which of its evaluations counts: HyperparameterHunter's optimisation takes the first of these."""


@dataclass(frozen=True, slots=True)
class HyperparameterHunterSource:
    """Experiments of HyperparameterHunter.

    Attributes:
        place: The folder ``HyperparameterHunterAssets``, or the one that holds it.
    """

    place: str
    kind: ClassVar[str] = "hyperparameterhunter"
    about: ClassVar = About(
        "HyperparameterHunter's experiments",
        "descriptions (version 3.0.0) with parameters and evaluations, and the leaderboard",
        "FOLDER",
        "folder HyperparameterHunterAssets",
        "HyperparameterHunterAssets --objective oof_roc_auc_score",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the experiments.

        Raises:
            InvalidArgumentError: If there are no assets.
        """
        folder = existing(self.place, "the folder HyperparameterHunterAssets")
        if (folder / _ASSETS).is_dir():
            folder = folder / _ASSETS
        board = _leaderboard(folder / LEADERBOARD)
        files = sorted((folder / DESCRIPTIONS).glob("*.json"))
        if not files and not board:
            raise InvalidArgumentError(
                f"Assets of HyperparameterHunter must hold {DESCRIPTIONS} or {LEADERBOARD}, but {str(folder)!r} has neither. "
                "Give the folder HyperparameterHunterAssets."
            )
        report = counted(progress, len(files), "experiments")
        for index, file in enumerate(files):
            report(index)
            try:
                yield _experiment(json_object(read_text(file, _MAX_DESCRIPTION_BYTES)), board)
            except UnreadableRecordError as error:
                yield SkippedRecord(str(error), file.name)
        described = {file.stem for file in files}
        for identity in board:
            if identity not in described:
                yield SkippedRecord("is in the leaderboard only: without a description it has no hyperparameters", identity, is_bad=False)


def _leaderboard(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        return {row["experiment_id"]: row for row in csv_rows(read_text(path, 256 * MIB)) if row.get("experiment_id")}
    except UnreadableRecordError:
        return {}  # it repeats the descriptions, except for the order


def _experiment(found: Mapping[str, Any], board: Mapping[str, Mapping[str, str]]) -> ForeignRun:
    identity = found.get("experiment_id")
    hyperparameters, environment = found.get("hyperparameters"), found.get("cross_experiment_parameters")
    if not isinstance(identity, str) or not isinstance(hyperparameters, dict):
        raise UnreadableRecordError("is no description of an experiment")
    row = board.get(identity, {})
    times = _mapping(_mapping(found.get("aggregates")).get("times"))
    started, ended = moment_of(times.get("start")), moment_of(times.get("end"))
    number = number_of(row.get("experiment_#"))
    curves = _curves(found, row)
    names = [name for prefix in _PREFERRED for name in curves if name.startswith(f"{prefix}_")]
    first = {name for name in names if name.startswith(names[0].partition("_")[0] + "_")} if names else set()
    algorithm = str(found.get("algorithm_name") or "")[:100]
    return ForeignRun(
        key=(identity[:64],),
        task=_task(found, _mapping(environment)),
        hparams=_hparams(hyperparameters),
        curves=curves,
        # with several metrics it is not recorded which one counts
        objective=names[0] if len(first) == 1 else None,
        facts={"experiment_id": identity, "algorithm": algorithm, "cross_experiment_key": str(found.get("cross_experiment_key"))[:64]},
        started_utc=utc_of(started),
        ended_utc=utc_of(ended),
        wall_s=number_of(times.get("total_elapsed")),
        model_class=algorithm or None,
        order=started.replace(tzinfo=UTC) if started is not None else int(number) if number is not None and number < 1e9 else 0,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _task(found: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Return what the experiments that may be compared share: the key HyperparameterHunter gives data, target, folds and metrics."""
    target = environment.get("target_column")
    target = target[0] if isinstance(target, list) and target else target
    key = str(found.get("cross_experiment_key") or "unknown")
    return f"{str(target)[:60]} ({key[:8]})" if isinstance(target, str) else f"environment {key[:8]}"


def _hparams(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's parameters, then those of fitting and of features."""
    flat = flattened(_mapping(found.get("model_init_params")))
    for name, value in flattened(_mapping(found.get("model_extra_params"))).items():
        flat.setdefault(name, value)
    if isinstance(found.get("model_initializer"), str):
        flat["model_initializer"] = found["model_initializer"][:100]
    return {name: value for name, value in flat.items() if not isinstance(value, list) or len(value) <= 20}


def _curves(found: Mapping[str, Any], row: Mapping[str, str]) -> dict[str, Curve]:
    values: dict[str, float] = {}
    for prefix, metrics in _mapping(found.get("final_evaluations")).items():
        for metric, value in _mapping(metrics).items():
            number = number_of(value)
            if number is not None:
                values[f"{prefix}_{metric}"[:200]] = number
    for name, text in row.items():
        number = number_of(text)
        if name.startswith(tuple(f"{prefix}_" for prefix in _PREFERRED)) and number is not None and not math.isnan(number):
            values.setdefault(name[:200], number)
    return {name: Curve([0], [value]) for name, value in values.items()}
