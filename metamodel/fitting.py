"""Automatic fits: which model is active, when it is outdated, and how a new one replaces it."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metamodel.data.learning_tables import learning_table
from metamodel.data.nouns import count
from metamodel.data.observations import LearningTable
from metamodel.data.opened_history import opened_history
from metamodel.gp.meta_model import MIN_TASKS_TO_FIT, MetaModel, Progress, is_trainable
from metamodel.kinds import DEFAULT, KINDS, check_kind, class_of
from store.errors import InvalidArgumentError, MetaHPError, ModelFileError, NotEnoughHistoryError
from store.ids import new_id
from store.records import OUTDATED_BY
from store.switches import REFIT

if TYPE_CHECKING:
    from store import History

logger = logging.getLogger(__name__)

MIN_STEPS_TO_REPLACE = 0.25
"""Share of the steps an automatic fit must reach before it may replace an existing model."""
KEPT_MODELS = 3
"""Files that stay, of each kind."""

_loaded: dict[Path, MetaModel] = {}


@dataclass(frozen=True, slots=True, eq=False)
class ActiveModel:
    """The model that answers.

    Attributes:
        model: The model, None where the history has too few tasks for one.
        note: What happened, for the start-up message; empty if nothing did.
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
    model: str = DEFAULT,
    progress: Progress | None = None,
    seed: int = 0,
) -> MetaModel:
    """Fit the meta-model without a time limit, store it next to the history and make its kind the active one.

    Args:
        history: A history, its path, or None for the default one.
        device: ``auto`` takes a GPU when there is one.
        model: Its kind: ``metahp`` (the default), ``direct``, ``maml`` or ``reptile``; automatic fits stay with the kind chosen here.
        progress: Called with a fraction in [0, 1] and a text.
        seed: Seed of the fit.

    Returns:
        The new model.

    Raises:
        NotEnoughHistoryError: If fewer tasks are trainable than the kind takes: one for ``metahp``, two for the others.
        InvalidArgumentError: If the device or the kind does not exist.
    """
    check_kind(model)
    with opened_history(history) as opened:
        fitted = _fit_and_store(opened, learning_table(opened), model, pick_device(device)[0], seed, None, progress)
        assert fitted is not None  # only a time limit could have kept it from learning
        return fitted


def active_kind(history: History) -> str:
    """Return the kind that answers unless another is asked for: that of the last ``refit``."""
    chosen = [row for row in history.models() if row["kind"] in KINDS and row["info"].get("is_chosen", True)]
    return str(max(chosen, key=lambda row: str(row["id"]))["kind"]) if chosen else DEFAULT


def current_model(history: History, kind: str | None = None) -> MetaModel | None:
    """Return the newest readable model of a history, or None. A damaged file is passed over with a warning.

    Args:
        history: Open history.
        kind: Its kind; None for the active one.
    """
    wanted = kind or active_kind(history)
    rows = [row for row in history.models() if row["kind"] == wanted]
    for row in sorted(rows, key=lambda row: str(row["id"]), reverse=True):
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
        _keep_loaded(path, model)
        return model
    return None


def _keep_loaded(path: Path, model: MetaModel) -> None:
    """Remember the last few models that were asked: a comparison asks several kinds in turn."""
    _loaded.pop(path, None)
    _loaded[path] = model
    while len(_loaded) > len(KINDS):
        del _loaded[next(iter(_loaded))]


def outdated_reason(model: MetaModel | None, table: LearningTable, least: int = MIN_TASKS_TO_FIT) -> str | None:
    """Say why a model should be fitted anew, or None if it should not.

    Args:
        model: The present model.
        table: What the history offers now.
        least: Tasks from which a fit is worth its time.
    """
    trainable = {task.task_id for task in table.tasks if is_trainable(task)}
    if len(trainable) < least:
        return None
    if model is None:
        return "there is no meta-model yet"
    n_new_tasks = len(trainable - set(model.info["task_ids"]))
    if n_new_tasks:
        return f"the history has {count(n_new_tasks, 'new task')}"
    if table.n_finished >= OUTDATED_BY * int(model.info["n_finished"]):
        return f"the history grew from {model.info['n_finished']} to {table.n_finished} finished runs"
    return None


def active_model(
    history: History,
    table: LearningTable,
    max_fit_s: float = 10.0,
    device: str = "auto",
    seed: int = 0,
    kind: str | None = None,
    least: int = MIN_TASKS_TO_FIT,
) -> ActiveModel:
    """Return the active model, fitting a missing or outdated one first.

    Args:
        history: Open history.
        table: What it offers.
        max_fit_s: Time for an automatic fit in seconds; 0 fits nothing.
        device: As for ``refit``.
        seed: Seed of the fit.
        kind: Kind of the model; None for the active one. Another one is fitted for this query and does not become active.
        least: Tasks from which a fit is worth its time.
    """
    chosen = kind or active_kind(history)
    model = current_model(history, chosen)
    reason = outdated_reason(model, table, least)
    if reason is None:
        return ActiveModel(model)
    if not REFIT.is_on:
        return ActiveModel(model, f"{reason}; METAHP_REFIT=off, so nothing was fitted")
    if max_fit_s <= 0:
        return ActiveModel(model, f"{reason}; no time was given to fit")
    started = time.monotonic()
    limit_s = 0.8 * max_fit_s
    is_active = kind is None or kind == active_kind(history)
    try:
        new = _fit_and_store(history, table, chosen, pick_device(device)[0], seed, limit_s, None, replaces=model, is_chosen=is_active)
    except NotEnoughHistoryError as error:  # nothing went wrong: there is nothing to learn yet
        return ActiveModel(model, f"{reason}; {error}")
    except (MetaHPError, OSError, RuntimeError) as error:  # torch has no class of its own for a full GPU or a singular matrix
        logger.warning("The automatic fit failed and the previous meta-model is used: %s", error)
        return ActiveModel(model, f"{reason}; the automatic fit failed: {error}")
    if new is None or new is model:
        used = "none is used" if model is None else "the previous one is used"
        command = "metahp refit" + ("" if chosen == DEFAULT else f" --model {chosen}")
        return ActiveModel(model, f"{reason}; {max_fit_s:g} s were not enough to fit, so {used}: run `{command}`")
    seconds = time.monotonic() - started
    known = f"{count(int(new.info['n_runs']), 'run')} of {count(int(new.info['n_tasks']), 'task')}"
    return ActiveModel(new, f"fitted the meta-model to {known} in {seconds:.1f} s, since {reason}")


def _fit_and_store(
    history: History,
    table: LearningTable,
    kind: str,
    device: str,
    seed: int,
    deadline_s: float | None,
    progress: Progress | None,
    replaces: MetaModel | None = None,
    is_chosen: bool = True,
) -> MetaModel | None:
    """Fit and store a model; return ``replaces`` instead where there was too little time to learn enough."""
    started = time.monotonic()
    info: dict[str, Any] = {"id": new_id(), "created_utc": datetime.now(UTC).isoformat(timespec="seconds"), "versions": _versions()}
    model: MetaModel = class_of(kind).fit(table, info, device=device, seed=seed, deadline_s=deadline_s, progress=progress)
    seconds = time.monotonic() - started
    is_worth_keeping = replaces is not None and int(replaces.info["n_tasks"]) >= MIN_TASKS_TO_FIT
    if model.share_done < (MIN_STEPS_TO_REPLACE if is_worth_keeping else model.min_share):
        return replaces
    model = model.with_info(seconds=round(seconds, 3), is_chosen=is_chosen)
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
    _keep_loaded(path, model)
    _remove_old(history)
    return model


def _remove_old(history: History) -> None:
    """Keep the newest models of each kind; a reader that just chose an older one still holds its content."""
    kind_of = {str(row["file"]): str(row["kind"]) for row in history.models()}
    seen: Counter[str] = Counter()
    for meta in sorted(history.models_path.glob("*.json"), reverse=True):
        kind = kind_of.get(meta.name, DEFAULT)
        seen[kind] += 1
        if seen[kind] > KEPT_MODELS:
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
