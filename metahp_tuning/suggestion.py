"""``suggest``: the same decision for a loop of one's own, scikit-learn or Keras."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from metahp_tuning.decision import TuningDecision, tune
from metahp_tuning.host import check_request
from metahp_tuning.lazy_history import PendingRecommendation
from metahp_tuning.loop_host import LoopHost
from metamodel.data.task import TaskDescription
from store.errors import InvalidArgumentError
from store.names import resolve_direction
from store.switches import is_off

if TYPE_CHECKING:
    from metamodel.recommendation import Recommendation
    from store import History


class Suggestion(Mapping[str, Any]):
    """A complete configuration: the names you passed, with the values to train with.

    Pass it on as it is: ``history.start_run(hparams=suggestion)`` links the run to the recommendation and records what was asked for; task,
    objective and model are those of the call, unless ``start_run`` is given others. A copy (``{**suggestion}``) is a plain dictionary
    without that link.

    Attributes:
        recommendation: What was recommended, applied or not; None where nothing was asked for.
        message: What was decided and why, as it was printed.
        requested: Name -> your own value, where it was changed.
        sources: Name -> who decided the value, where it was changed.
        run_fields: What is known of the run, by the names of the arguments of ``start_run``.
    """

    def __init__(self, config: Mapping[str, Any], decision: TuningDecision, run_fields: Mapping[str, Any]) -> None:
        self._values = {**config, **{change.raw_name: change.new for change in decision.changes}}
        self._followed_id = decision.followed_id
        self._pending: PendingRecommendation | None = decision.pending
        self.recommendation: Recommendation | None = decision.recommendation
        self.message = decision.message
        self.requested = {change.raw_name: change.old for change in decision.changes}
        self.run_fields = dict(run_fields)
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
    world_size: int | None = None,
    max_startup_s: float = 10.0,
) -> Suggestion:
    """Return your configuration with what the history predicts to be better, for a loop that no host drives.

    The values passed are the fallback: where nothing is known, or they are as good, they come back unchanged, but for a batch larger than
    the data or than what is known to run out of memory. Without ``space``, only what
    is safe to change may change (learning rate, weight decay, dropout, momentum, warm-up, batch size), and only to values seen in the
    history. ``METAHP=off`` returns what was given, ``METAHP_PIN=<id>`` applies a stored recommendation again.

    Args:
        config: Raw name -> value, every hyperparameter of the run; the optimizer's name, too, where there is one (``"optimizer": "Adam"``).
        space: Raw or canonical name -> Optuna distribution or list of values.
        task: Name, or a ``TaskDescription``; may be left out where a torch ``model`` and ``train_dataset`` are passed.
        objective: Metric to improve.
        direction: ``min`` or ``max``; default: inferred from the name.
        history: A ``History``, a path, or None for the default one.
        keep: Names never to touch.
        mode: ``best``, ``explore``, or ``dry-run``, which only says what it would do.
        model: The model, so that the first day has advice, a batch keeps within a known memory, and a changed source is noticed.
        train_dataset: The training data, likewise; a torch data set or loader, or anything with a length.
        world_size: Processes that train together; default: as ``torch.distributed`` or the launcher says. All of them call this and get the
            same values.
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
    odd = (
        type(config).__name__
        if not isinstance(config, Mapping)
        else next((f"the name {key!r}" for key in config if not isinstance(key, str)), None)
    )
    if odd is not None:
        hint = "Pass vars(...) of it." if hasattr(config, "__dict__") else "Pass for example {'lr': 0.001}."
        raise InvalidArgumentError(f"config must be a mapping of names to values, but got {odd}. {hint}")
    if is_off():
        return Suggestion(config, TuningDecision(), {})
    if world_size is not None and (isinstance(world_size, bool) or not isinstance(world_size, int) or world_size < 1):
        raise InvalidArgumentError(f"world_size must be a whole number, at least 1, but got {world_size!r}. Leave it out to find it.")
    if objective is not None:
        resolve_direction(objective, direction)
    request = check_request(space, task, objective, direction, history, keep, mode, max_startup_s)
    host = LoopHost(config, request, model, train_dataset, world_size)
    decision = tune(host, request)
    return Suggestion(config, decision, host.run_fields())
