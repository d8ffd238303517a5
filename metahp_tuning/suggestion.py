"""``suggest``: the same decision for a loop of one's own, scikit-learn or Keras."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from metahp_tuning.decision import TuningDecision, tune
from metahp_tuning.host import PlainHost, TuningRequest, check_request
from metahp_tuning.lazy_history import PendingRecommendation
from metahp_tuning.precedence import Setting, check_names
from metamodel.data.task import TaskDescription
from metamodel.space.batch import BatchLayout
from store.errors import InvalidArgumentError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE, Role, hyperparameter
from store.names import canonical_name, canonical_names, resolve_direction
from store.statuses import Source

if TYPE_CHECKING:
    from metamodel.recommendation import Recommendation
    from store import History

_log = logging.getLogger(__name__)


class Suggestion(Mapping[str, Any]):
    """A complete configuration: the names you passed, with the values to train with.

    Pass it on as it is: ``history.start_run(hparams=suggestion)`` links the run to the recommendation and records what was asked for.

    Attributes:
        recommendation: What was recommended, applied or not; None where nothing was asked for.
        message: What was decided and why, as it was printed.
        requested: Name -> your own value, where it was changed.
        sources: Name -> who decided the value.
    """

    def __init__(self, config: Mapping[str, Any], decision: TuningDecision) -> None:
        self._values = {**config, **{change.raw_name: change.new for change in decision.changes}}
        self._followed_id = decision.followed_id
        self._pending: PendingRecommendation | None = decision.pending
        self.recommendation: Recommendation | None = decision.recommendation
        self.message = decision.message
        self.requested = {change.raw_name: change.old for change in decision.changes}
        self.sources = {change.raw_name: str(change.source) for change in decision.changes}

    @property
    def recommendation_id(self) -> str | None:
        """Id of the recommendation that this configuration follows, None where it follows none."""
        return self._followed_id

    def save_into(self, history: History) -> None:
        """Save the recommendation, where there was no history yet when it was made. Called by ``History.start_run``."""
        if self._pending is not None:
            self._pending.save(history)
            self._pending = None

    def __getitem__(self, name: str) -> Any:
        """Return the value of a name you passed."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names you passed, in your order."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._values)

    def __repr__(self) -> str:
        """Show the configuration as a dictionary."""
        return f"Suggestion({self._values!r})"


class _LoopHost(PlainHost):
    """A training that is a loop of the user's own: its settings are a mapping."""

    framework = "python"
    unknown_objective_hint = "Pass objective='val_loss', and direction='min' or 'max' where the name does not say it."

    def __init__(self, config: Mapping[str, Any], request: TuningRequest, model: Any, train_dataset: Any, world_size: int) -> None:
        self._config = dict(config)
        self._request = request
        self._model = model
        self._train_dataset = train_dataset
        self._world_size = world_size
        names = canonical_names(list(config))
        # The call itself asks for other values, so what is passed is a fallback; what must stay is named in keep.
        self._settings = {
            names[raw]: Setting(raw, value, Source.DEFAULT) for raw, value in config.items() if _is_tunable(names[raw], value)
        }
        self._has_reported = False

    def check(self, request: TuningRequest) -> TuningRequest:
        """Check that every name of ``space`` and ``keep`` is in the configuration."""
        where, advice = "the configuration passed to suggest()", "Pass its present value in the configuration, too."
        check_names(request.keep, list(self._config), where, advice)
        check_names([raw for raw in request.tunable if not self._has_batch(raw)], list(self._config), where, advice)
        return request

    def settings(self) -> Mapping[str, Setting]:
        """Return the values passed."""
        return self._settings

    def describe(self) -> TaskDescription:
        """Describe the task by its name, or by data and model where they were passed."""
        request = self._request
        objective, direction = request.objective, request.direction
        if objective is not None:
            direction = resolve_direction(objective, direction).value
        task = request.task
        if isinstance(task, TaskDescription):
            return task if task.objective is not None or objective is None else task.with_objective(objective, direction)
        known = _described(self._model, self._train_dataset)
        return replace(TaskDescription(**known), name=task, objective=objective, direction=direction)

    def layout(self) -> BatchLayout | None:
        """Return how the batch is put together."""
        setting = self._settings.get(PER_DEVICE_BATCH_SIZE)
        accumulation = self._settings.get(ACCUMULATION)
        if setting is None or isinstance(setting.value, bool) or not isinstance(setting.value, int) or setting.value < 1:
            return None
        steps = accumulation.value if accumulation is not None and isinstance(accumulation.value, int) else 1
        return BatchLayout(setting.value, max(1, steps), max(1, self._world_size))

    def current(self) -> dict[str, Any]:
        """Return the configuration, with the global batch."""
        layout = self.layout()
        return {**self._config, **({} if layout is None else {GLOBAL_BATCH_SIZE: layout.global_size})}

    @property
    def precision(self) -> str | None:
        """What the configuration says."""
        found = self._config.get("precision")
        return None if found is None else str(found)

    def variant(self) -> str | None:
        """Return the version of a torch module's source."""
        if self._model is None or "torch" not in sys.modules:
            return None
        import torch

        if not isinstance(self._model, torch.nn.Module):
            return None
        from metahp_tuning.class_source import model_variant

        return model_variant(self._model)

    def write(self, decision: TuningDecision) -> TuningDecision:
        """Return the decision: the mapping that ``suggest`` returns is made of it."""
        return decision

    def report(self, doing: str, error: Exception) -> None:
        """Warn that something of ours failed."""
        _log.warning("metahp: nothing changed; %s failed with %s: %s", doing, type(error).__name__, error)
        _log.debug("The reason in full:", exc_info=error)

    def print(self, message: str) -> None:
        """Print to stderr, on the first process only."""
        if int(os.environ.get("RANK", "0") or 0) == 0:
            print(message, file=sys.stderr, flush=True)

    def _has_batch(self, raw: str) -> bool:
        return canonical_name(raw) == GLOBAL_BATCH_SIZE and PER_DEVICE_BATCH_SIZE in self._settings


def suggest(
    config: Mapping[str, Any],
    *,
    space: Mapping[str, Any] | None = None,
    task: str | TaskDescription | None = None,
    objective: str | None = None,
    direction: str | None = None,
    history: History | str | os.PathLike[str] | None = None,
    keep: Collection[str] | str = (),
    mode: str = "best",
    model: Any = None,
    train_dataset: Any = None,
    world_size: int = 1,
    max_startup_s: float = 10.0,
) -> Suggestion:
    """Return your configuration with what the history predicts to be better, for a loop that no host drives.

    The values passed are the fallback: where nothing is known, or they are as good, they come back unchanged. Without ``space``, only what
    is safe to change may change (learning rate, weight decay, dropout, momentum, warm-up, batch size), and only to values seen in the
    history. ``METAHP=off`` returns what was given, ``METAHP_PIN=<id>`` applies a stored recommendation again.

    Args:
        config: Raw name -> value, every hyperparameter of the run; the optimizer's name, too, where there is one (``"optimizer": "Adam"``).
        space: Raw or canonical name -> Optuna distribution or list of values.
        task: Name, or a ``TaskDescription``; may be left out where ``model`` and ``train_dataset`` are passed.
        objective: Metric to improve.
        direction: ``min`` or ``max``; default: inferred from the name.
        history: A ``History``, a path, or None for the default one.
        keep: Names never to touch.
        mode: ``best``, ``explore``, or ``dry-run``, which only says what it would do.
        model: The model, so that the first day has advice and batches keep within a known memory: a ``torch.nn.Module``.
        train_dataset: The training data, likewise; anything with a length.
        world_size: Processes that train together.
        max_startup_s: Time the call may take, in seconds, where a model has to be fitted first.

    Returns:
        A mapping with the names of ``config``, to be passed to ``History.start_run(hparams=...)``.

    Raises:
        InvalidArgumentError: If ``config`` is no mapping, or another argument is not possible.
        UnknownHyperparameterError: If ``space`` or ``keep`` names something that ``config`` does not have.
        SpaceError: If the space is malformed.
        ObjectiveError: If the direction of the objective is unknown.
        UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
        HistoryPathError: If the given history cannot be used.

    Example:
        >>> config = suggest({"lr": 1e-3, "batch_size": 32}, task="digits", objective="val_acc", mode="dry-run")
        >>> config["lr"]
        0.001
    """
    if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
        raise InvalidArgumentError(
            f"config must be a mapping of names to values, but got {type(config).__name__}. Pass for example {{'lr': 0.001}}."
        )
    if objective is not None:
        resolve_direction(objective, direction)
    request = check_request(space, task, objective, direction, history, keep, mode, max_startup_s)
    host = _LoopHost(config, request, model, train_dataset, world_size)
    return Suggestion(config, tune(host, request))


def _is_tunable(name: str, value: Any) -> bool:
    row = hyperparameter(name)
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return is_plain and (row is None or row.role is not Role.RUN)


def _described(model: Any, train_dataset: Any) -> dict[str, Any]:
    """Return what a torch module and a data set say of themselves; torch is loaded only where there is one of its modules."""
    known: dict[str, Any] = {}
    torch = sys.modules.get("torch")
    if torch is not None and (train_dataset is not None or isinstance(model, torch.nn.Module)):
        from metahp_tuning.task_description import describe_dataset, model_class_name, model_family, parameter_count

        if train_dataset is not None:
            known = describe_dataset(train_dataset)
        if isinstance(model, torch.nn.Module):
            known |= {
                "model_class": model_class_name(model),
                "model_family": model_family(model),
                "n_parameters": parameter_count(model),
            }
    elif hasattr(train_dataset, "__len__") and not isinstance(train_dataset, Mapping):
        known["n_train"] = len(train_dataset)
    if model is not None and "model_class" not in known:
        known["model_class"] = type(model).__qualname__
    return {name: value for name, value in known.items() if value is not None}
