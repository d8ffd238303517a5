"""Names of tasks that were made by default say nothing: the folder above tells them apart, and who joins a task of others is noted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from store.ids import task_id_of
from store.sqlite.operations import resolve_merged
from store.values import decode_value, encode_value, storable_text

if TYPE_CHECKING:
    from store.history import History

_DEFAULT_NAMES = frozenset(
    str.split(
        "results result out output outputs log logs csv csv_logs tb tb_logs tensorboard tensorboard_logs lightning lightning_logs run "
        "runs mlruns mlflow default model models checkpoint checkpoints ckpt ckpts experiment experiments exp train training fit multirun "
        "tmp temp test_trainer tmp_trainer trainer_output optuna study storage wandb trackio artifacts save saved saves"
    )
)
_NUMBERED = re.compile(r"(version|checkpoint|run|trial|exp|experiment)?[-_]?\d+([-_.:]\d+)*")
"""``version_0``, ``checkpoint-500``, ``run-1``, and the dates and times by which Hydra and others name a run's folder."""


def is_default_name(name: str) -> bool:
    """Say whether a name is what a tool or a tutorial calls anything, so that two projects share it."""
    return name.strip().lower() in _DEFAULT_NAMES or is_numbered(name)


def is_numbered(name: str) -> bool:
    """Say whether a name only numbers or dates a run among its like."""
    return _NUMBERED.fullmatch(name.strip().lower()) is not None


def task_of_folder(folder: Path) -> str:
    """Return the name of a folder as that of a task: of the first one, from here upwards, that somebody named."""
    named = next((part.name for part in (folder, *folder.parents) if part.name and not is_default_name(part.name)), None)
    return named or folder.name or "runs"


def unique_name(name: str, place: Path) -> str:
    """Return the name a tool gave a task; where it is a default one, with the folder in front that tells it apart.

    Args:
        name: Name of a study, an experiment or a project.
        place: The file or folder that holds it.
    """
    if not is_default_name(name):
        return name
    above = task_of_folder(place.parent)
    return name if is_default_name(above) else f"{above}/{name}"


def joining_notes(history: History, ids_by_task: Mapping[str, Collection[str]], kind: str, place: str) -> list[str]:
    """Return a note for each task of an import that has runs of another source already.

    Args:
        history: The history, before the import.
        ids_by_task: Task -> ids of the runs that come in.
        kind: The importer.
        place: Where the runs come from.
    """
    same = (kind, str((decode_value(encode_value({"place": place})) or {}).get("place")))
    notes = []
    for task, ids in ids_by_task.items():
        others: Counter[str] = Counter()
        with history._using() as connection:
            task_id = resolve_merged(connection, task_id_of({"name": storable_text(task)}))
            for run_id, text in connection.execute("SELECT id, description_json FROM runs WHERE task_id = ?", (task_id,)):
                if run_id in ids:
                    continue
                found = (decode_value(text) or {}).get("origin")
                origin = found if isinstance(found, Mapping) else {}
                if (origin.get("importer"), str(origin.get("place"))) != same:
                    others[str(origin.get("importer") or "recorded here")] += 1
        if others:
            listed = ", ".join(f"{count} {name}" for name, count in others.most_common())
            notes.append(f"task {task!r} has runs of another source already ({listed}): these join them; --task NAME keeps them apart")
    return notes
