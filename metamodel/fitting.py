"""Learning by itself: which model serves, when it is outdated, and how a new one takes its place."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metamodel.model import MIN_TASKS, MetaModel, is_teaching
from metamodel.observations import LearningTable, learning_table
from metamodel.task_gps import N_STEPS
from store.errors import InvalidArgumentError, MetaHPError, ModelFileError
from store.ids import new_id

if TYPE_CHECKING:
    from store import History

logger = logging.getLogger(__name__)

OUTDATED_BY = 1.2
"""A model is outdated once the history holds this many times the finished runs it has seen."""
MIN_STEPS_TO_REPLACE = 0.25
"""Share of the steps an automatic fit must reach before it may replace an existing model."""
KEPT_MODELS = 3

_loaded: dict[Path, MetaModel] = {}


@dataclass(frozen=True)
class Serving:
    """Which model answers.

    Attributes:
        model: The model, None where the history has too few tasks for one.
        note: What happened, for the start-up message; empty if nothing worth a word.
    """

    model: MetaModel | None
    note: str = ""


def pick_device(device: str = "auto") -> tuple[str, str]:
    """Choose where to train.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The torch device and the reason for it in words.

    Raises:
        InvalidArgumentError: If the device is none of these, or a GPU is asked for and there is none.
    """
    import torch

    if device == "auto":
        return ("cuda", "a GPU is present") if torch.cuda.is_available() else ("cpu", "no GPU is present")
    if not isinstance(device, str) or (device != "cpu" and not device.startswith("cuda")):
        raise InvalidArgumentError(
            f"A device must be 'auto', 'cpu' or 'cuda', but got {device!r}. Use 'auto' to take a GPU when there is one."
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidArgumentError(f"The device {device!r} needs a GPU that torch can see, and there is none. Use 'auto' or 'cpu'.")
    return device, "asked for"


def refit(
    history: History | str | os.PathLike[str] | None = None,
    device: str = "auto",
    *,
    progress: Callable[[float, str], None] | None = None,
    seed: int = 0,
) -> MetaModel:
    """Fit the meta-model without a time limit, store it beside the history and let it serve from now on.

    Args:
        history: A history, its path, or None for the default one.
        device: ``auto`` takes a GPU when there is one.
        progress: Called with a fraction in [0, 1] and a text.
        seed: Seed of the fit.

    Returns:
        The new model.

    Raises:
        NotEnoughHistoryError: If fewer than two tasks can teach.
        InvalidArgumentError: If the device does not exist.
    """
    from store import open_history

    opened = open_history(history)
    try:
        return _fit_and_store(opened, learning_table(opened), N_STEPS, pick_device(device)[0], seed, None, progress)
    finally:
        if opened is not history:
            opened.close()


def current_model(history: History) -> MetaModel | None:
    """Return the newest readable model of a history, or None. A damaged file is passed over with a warning."""
    for row in sorted(history.models(), key=lambda row: str(row["id"]), reverse=True):
        path = Path(row["file"])
        path = path if path.is_absolute() else history.models_path / path
        if path in _loaded:
            return _loaded[path]
        if not path.exists():
            continue
        try:
            model = MetaModel.load(path)
        except ModelFileError as error:
            logger.warning("%s", error)
            continue
        _loaded.clear()
        _loaded[path] = model
        return model
    return None


def outdated_reason(model: MetaModel | None, table: LearningTable) -> str | None:
    """Say why a model should be fitted anew, or None if it should not.

    Args:
        model: The present model.
        table: What the history offers now.
    """
    teaching = {task.task_id for task in table.tasks if is_teaching(task)}
    if len(teaching) < MIN_TASKS:
        return None
    if model is None:
        return "there is no meta-model yet"
    n_new_tasks = len(teaching - set(model.info["task_ids"]))
    if n_new_tasks:
        return f"the history has {n_new_tasks} new task{'s' if n_new_tasks > 1 else ''}"
    if table.n_finished >= OUTDATED_BY * int(model.info["n_finished"]):
        return f"the history grew from {model.info['n_finished']} to {table.n_finished} finished runs"
    return None


def serving_model(history: History, table: LearningTable, max_fit_s: float = 10.0, device: str = "auto", seed: int = 0) -> Serving:
    """Return the model to ask, fitting a missing or outdated one first.

    Args:
        history: Open history.
        table: What it offers.
        max_fit_s: Time for an automatic fit in seconds; 0 fits nothing.
        device: As for ``refit``.
        seed: Seed of the fit.
    """
    model = current_model(history)
    reason = outdated_reason(model, table)
    if reason is None:
        return Serving(model)
    if os.environ.get("METAHP_REFIT", "").lower() in {"off", "0", "false"}:
        return Serving(model, f"{reason}; METAHP_REFIT=off, so nothing was fitted")
    if max_fit_s <= 0:
        return Serving(model, f"{reason}; no time was given to fit")
    started = time.monotonic()
    try:
        new = _fit_and_store(history, table, N_STEPS, pick_device(device)[0], seed, 0.8 * max_fit_s, None, replaces=model)
    except (MetaHPError, OSError) as error:
        logger.warning("The automatic fit failed and the previous meta-model serves: %s", error)
        return Serving(model, f"{reason}; the automatic fit failed: {error}")
    if new is model:
        return Serving(model, f"{reason}; {max_fit_s:g} s were not enough to fit, so the previous one serves: run `metahp refit`")
    seconds = time.monotonic() - started
    return Serving(
        new, f"fitted the meta-model to {new.info['n_runs']} runs of {new.info['n_tasks']} tasks in {seconds:.1f} s, since {reason}"
    )


def _fit_and_store(
    history: History,
    table: LearningTable,
    n_steps: int,
    device: str,
    seed: int,
    deadline_s: float | None,
    progress: Callable[[float, str], None] | None,
    replaces: MetaModel | None = None,
) -> MetaModel:
    started = time.monotonic()
    info: dict[str, Any] = {"id": new_id(), "created_utc": datetime.now(UTC).isoformat(timespec="seconds"), "versions": _versions()}
    model = MetaModel.fit(table, info, n_steps=n_steps, device=device, seed=seed, deadline_s=deadline_s, progress=progress)
    seconds = time.monotonic() - started
    if replaces is not None and model.task_gps.n_steps_done < MIN_STEPS_TO_REPLACE * n_steps:
        return replaces
    model = replace(model, info={**model.info, "seconds": round(seconds, 3)})
    path = model.save(history.models_path)
    history.save_model(
        {
            "id": model.id,
            "created_utc": model.info["created_utc"],
            "kind": model.info["kind"],
            "file": path.name,
            "n_runs": model.info["n_runs"],
            "n_tasks": model.info["n_tasks"],
            "info": dict(model.info),
        }
    )
    _loaded.clear()
    _loaded[path] = model
    _remove_old(history.models_path)
    return model


def _remove_old(folder: Path) -> None:
    """Keep the newest models; a reader that just chose an older one still holds its content."""
    for meta in sorted(folder.glob("*.json"), reverse=True)[KEPT_MODELS:]:
        for path in (meta, meta.with_suffix(".safetensors")):
            path.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("lightning-metahp", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
