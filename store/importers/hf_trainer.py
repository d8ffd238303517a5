"""Output folders of ``transformers.Trainer``: ``trainer_state.json`` with ``training_args.bin``, which is read and never executed.

One output folder is one run: of the checkpoints in it, the state that got furthest has the whole log. Its outcome is the best metric of the
state, where the Trainer chose its best model by one; its hyperparameters include those of a search's trial.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from store.errors import InvalidArgumentError
from store.importers.bounded_files import MIB, UnreadableRecordError, existing, files_below, json_object, read_text, written_utc
from store.importers.foreign import MAX_STEP, ForeignRun, Point, Progress, Record, SkippedRecord, curve_of, flattened, gather, number_of
from store.importers.inert_pickle import Stub, read_saved_object
from store.importers.pipeline import counted
from store.importers.registry import About
from store.importers.task_names import is_default_name, is_numbered, task_of_folder
from store.records import Source
from store.sqlite.bulk import Curve

STATE, ARGUMENTS = "trainer_state.json", "training_args.bin"
_MAX_STATE_BYTES = 256 * MIB
_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.0,
    "warmup_steps": 0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "label_smoothing_factor": 0.0,
    "neftune_noise_alpha": None,
    "optim": ("adamw_torch", "adamw_torch_fused", "adamw_hf"),  # by version and device
    "bf16": False,
    "fp16": False,
    "gradient_checkpointing": False,
    "group_by_length": False,
    "seed": 42,
}
"""The fields that shape training, with what the class gives them: a field that holds it counts as a default."""
_NOT_METRICS = frozenset({"epoch", "step", "total_flos"})
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """Runs of ``transformers.Trainer``.

    Attributes:
        place: An output folder, or one with several of them.
    """

    place: str
    kind: ClassVar[str] = "hf"
    about: ClassVar = About(
        "runs of transformers.Trainer",
        "trainer_state.json of the checkpoint that got furthest; training_args.bin, which is read and never executed",
        "FOLDER",
        "output folder of a Trainer, or one with several",
        "out --task sst2 --objective eval_accuracy",
    )

    def read(self, progress: Progress) -> Iterator[Record]:
        """Yield the runs.

        Raises:
            InvalidArgumentError: If there is no folder, or no run in it.
        """
        folder = existing(self.place, "an output folder of transformers.Trainer")
        if folder.name == STATE:
            folder = folder.parent
        outputs: dict[Path, list[Path]] = {}
        for path in files_below(folder):
            if path.name == STATE:
                here = path.parent
                outputs.setdefault(here.parent if _CHECKPOINT.fullmatch(here.name) else here, []).append(path)
        if not outputs:
            raise InvalidArgumentError(
                f"An output folder must hold {STATE} somewhere, but {str(folder)!r} holds none. The Trainer writes it with each "
                "checkpoint, and with trainer.save_state()."
            )
        report = counted(progress, len(outputs), "runs", every=1)
        for index, (output, states) in enumerate(outputs.items()):
            report(index)
            try:
                yield _run(output, states, _place(output, folder))
            except UnreadableRecordError as error:
                yield SkippedRecord(str(error), output.name)


def _place(output: Path, root: Path) -> str:
    """Return the task of a folder without a named project: the folder given; of a default name below it, the one above that."""
    is_project = output != root and is_default_name(output.name) and not is_numbered(output.name)
    return task_of_folder(output if is_project else root)


def _run(output: Path, paths: list[Path], place: str) -> Record:
    states = []
    failure: UnreadableRecordError | None = None
    for path in paths:
        try:
            states.append((path, json_object(read_text(path, _MAX_STATE_BYTES))))
        except UnreadableRecordError as error:
            failure = error
    if not states:
        raise failure or UnreadableRecordError("has no state")
    path, state = max(states, key=lambda item: number_of(item[1].get("global_step")) or -1.0)
    history = state.get("log_history")
    if not isinstance(history, list):
        raise UnreadableRecordError("trainer_state.json has no log_history")
    entries = [entry for entry in history if isinstance(entry, dict)]
    arguments, missing = _arguments([path.parent, output, *sorted({other.parent for other, _ in states})])
    curves = _curves(entries)
    run = ForeignRun(
        key=(output.name, _identity(arguments, entries)),
        task=_task(place, arguments),
        curves=curves,
        facts={"folder": output.name, "training_args": missing or "read", "steps": _steps(state)},
        epochs_reached=number_of(state.get("epoch")),
        batch="per-device",
    )
    _add_arguments(run, arguments, state)
    _add_trial(run, state)
    _add_objective(run, arguments, state)
    run.wall_s = next((number_of(entry["train_runtime"]) for entry in reversed(entries) if "train_runtime" in entry), None)
    run.started_utc = written_utc(path)
    return run


def _steps(state: Mapping[str, Any]) -> str:
    """Return how far a run got: a state does not record whether a run short of its end was stopped, failed or is still running."""
    done, planned = number_of(state.get("global_step")), number_of(state.get("max_steps"))
    return f"{done or 0:.0f}" + (f" of {planned:.0f}" if planned is not None and planned > 0 else "")


def _arguments(folders: list[Path]) -> tuple[dict[str, Any], str]:
    """Return the fields of the training arguments beside a state, and why there are none."""
    reason = "there is none"
    for folder in dict.fromkeys(folders):
        path = folder / ARGUMENTS
        if not path.exists():
            continue
        try:
            saved = read_saved_object(path)
        except UnreadableRecordError as error:
            reason = str(error)
            continue
        if isinstance(saved, Stub) and isinstance(saved.state, dict):
            return {str(name): _plain(value) for name, value in saved.state.items()}, ""
        reason = "it holds no arguments"
    return {}, reason


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a field's value: of an enum's member what it is made from, of an object a mapping of its own plain fields, else None.

    Collections are left out: a few bytes of a pickle can nest them beyond every bound, and no field that is read here is one.
    """
    if isinstance(value, Stub):
        if isinstance(value.state, dict) and depth == 0:
            return {str(name)[:100]: _plain(item, 1) for name, item in value.state.items()}
        return _plain(value.args[0], depth + 1) if len(value.args) == 1 and depth < 4 else value.name[:200]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    if isinstance(value, str):
        return value[:2_000]
    return value if isinstance(value, bool | float) else None


def _identity(arguments: Mapping[str, Any], entries: list[dict[str, Any]]) -> str:
    """Return what stays the same while a run goes on and its checkpoints come and go."""
    chosen = {name: repr(arguments.get(name)) for name in ("output_dir", "run_name", "seed", *_DEFAULTS) if name in arguments}
    first = {name: repr(value) for name, value in entries[0].items()} if entries else {}
    return hashlib.sha256(repr((sorted(chosen.items()), sorted(first.items()))).encode()).hexdigest()[:16]


def _task(place: str, arguments: Mapping[str, Any]) -> str:
    """Return the task of the runs: the project, if it was named, else the folder that was given."""
    project = arguments.get("project")
    if isinstance(project, str) and project not in {"", "huggingface"}:  # what transformers calls an unnamed project
        return project[:200]
    return place


def _curves(entries: list[dict[str, Any]]) -> dict[str, Curve]:
    points: dict[str, list[Point]] = {}
    for entry in entries:
        step, epoch = number_of(entry.get("step")), number_of(entry.get("epoch"))
        if step is None or not 0 <= step < 2**53:
            continue
        for name, value in entry.items():
            number = number_of(value)
            if number is not None and name not in _NOT_METRICS:
                gather(points, str(name), (int(step), number, epoch, None))
    return {name: curve for name, values in points.items() if (curve := curve_of(values)) is not None}


def _add_arguments(run: ForeignRun, arguments: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    for name, default in _DEFAULTS.items():
        if name in arguments and not isinstance(arguments[name], dict | list):
            run.hparams[name] = arguments[name]
            if arguments[name] in (default if isinstance(default, tuple) else (default,)):
                run.sources[name] = Source.DEFAULT
    if not arguments:
        # the state itself knows these two; for everything else there is no source
        known = {"train_batch_size": state.get("train_batch_size"), "num_train_epochs": state.get("num_train_epochs")}
        run.hparams |= {name: value for name, value in known.items() if number_of(value) is not None}
        run.batch = None
        return
    processes = arguments.get("distributed_state")
    count = processes.get("num_processes") if isinstance(processes, dict) else None
    n_gpu = number_of(arguments.get("_n_gpu"))
    # several GPUs of one process share its batch: each gets one of the per-device size
    run.n_devices = max(1, count if isinstance(count, int) else 1) * max(1, int(n_gpu or 1))


def _add_trial(run: ForeignRun, state: Mapping[str, Any]) -> None:
    """Take what ``hyperparameter_search`` set for this trial: also what no training argument holds, such as a dropout of the model."""
    params = state.get("trial_params")
    if not isinstance(params, dict):
        return
    for name, value in flattened(params).items():
        if value is None or isinstance(value, bool | int | float | str):
            run.hparams[name] = value
            run.sources.pop(name, None)  # chosen, also where it is the default
    if state.get("trial_name"):
        run.facts["trial"] = str(state["trial_name"])[:200]


def _add_objective(run: ForeignRun, arguments: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Take the metric that the run itself chose its best model by; else the loss on the evaluation data, which every evaluation has."""
    best = number_of(state.get("best_metric"))
    name = arguments.get("metric_for_best_model") or _metric_of(run, state, best)
    if isinstance(name, str) and name:
        run.objective = name if name.startswith("eval_") else f"eval_{name}"  # "loss" is that of the evaluation, too
        greater = arguments.get("greater_is_better")
        run.direction = {True: "max", False: "min"}.get(greater) if isinstance(greater, bool) else None
        if best is not None and math.isfinite(best):
            run.outcomes[run.objective] = Curve([_best_step(state, run.curves.get(run.objective), best)], [best])
    elif "eval_loss" in run.curves:
        run.objective, run.direction = "eval_loss", "min"


def _metric_of(run: ForeignRun, state: Mapping[str, Any], best: float | None) -> str | None:
    """Return the metric that the best one is a value of, where no arguments name it and only one can be meant."""
    step = number_of(state.get("best_global_step"))
    points = {name: zip(curve.steps, curve.values, strict=True) for name, curve in run.curves.items() if name.startswith("eval_")}
    names = [name for name, values in points.items() if (step, best) in list(values)]
    return names[0] if len(names) == 1 else None


def _best_step(state: Mapping[str, Any], curve: Curve | None, best: float) -> int:
    """Return the step of the best metric, which older states, and those that saved no checkpoint for it, do not name."""
    step = number_of(state.get("best_global_step"))
    if step is None and curve is not None and best in curve.values:
        step = curve.steps[list(curve.values).index(best)]
    if step is None:
        step = number_of(state.get("global_step"))
    return int(step) if step is not None and 0 <= step < MAX_STEP else 0
