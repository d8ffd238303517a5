"""``MetaHPCLI``: a ``LightningCLI`` whose configuration is tuned before anything is built, and whose runs are logged."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

from lightning_metahp.callback import MetaHPCallback
from lightning_metahp.cli_config import as_argument, flat, tunable_arguments
from lightning_metahp.configuration_host import ConfigurationHost
from lightning_metahp.guard import report
from lightning_metahp.objective import check_objective
from lightning_metahp.run_log import AppliedRecommendation
from metahp_tuning.decision import TuningDecision, tune
from metahp_tuning.host import check_request
from metamodel.data.task import TaskDescription
from store.errors import MetaHPError

if TYPE_CHECKING:
    from store import History


class MetaHPCLI(LightningCLI):
    """A ``LightningCLI`` that tunes the parsed configuration and adds a ``MetaHPCallback``, unless there is one already.

    It takes the arguments of ``LightningCLI``, and needs jsonargparse as that does. Arguments of the model (its layers too), the
    datamodule, the optimizer and the schedule can be rewritten, and the saved ``config.yaml`` is what ran. Values on the command line
    or in a config file are explicit: they stay, unless ``space`` names them. What is linked to a rewritten value follows it. With
    ``ckpt_path`` nothing is rewritten; nor with a ``MetaHParams`` among the callbacks, which then does its own work.

    Args:
        *args: As for ``LightningCLI``.
        space: Raw or canonical name, or dotted key -> Optuna distribution or list of values; None for what is safe.
        objective: Metric to improve; default: what a checkpoint or early stopping monitors, else that of earlier runs.
        direction: ``min`` or ``max``; default: inferred.
        task: Name of the task, or a ``TaskDescription``; default: recognised by data, model and objective.
        history: A ``History``, a path, or None for the default one.
        mode: ``best``, ``explore``, or ``dry-run``, which only says what it would do.
        keep: Names never to touch.
        max_startup_s: Time for a model that has to be fitted first, in seconds.
        **kwargs: As for ``LightningCLI``.

    Raises:
        SpaceError: If the space is malformed.
        InvalidArgumentError: If ``mode`` or ``keep`` is not possible.
        UnknownHyperparameterError: If ``space`` or ``keep`` names something that the configuration does not have.
        ObjectiveError: If the direction of the objective is unknown.

    Example:
        >>> cli = MetaHPCLI(LitModel, LitData, objective="val_acc", space={"hidden": [4, 8, 16]}, args=["fit", "--trainer.max_epochs=1"])
        >>> cli.model.hparams.hidden
        8
    """

    def __init__(
        self,
        *args: Any,
        space: Mapping[str, Any] | None = None,
        objective: str | None = None,
        direction: str | None = None,
        task: str | TaskDescription | None = None,
        history: History | str | os.PathLike[str] | None = None,
        mode: str = "best",
        keep: Collection[str] | str = (),
        max_startup_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        if space is not None:
            space = {raw.rpartition(".")[2]: values for raw, values in space.items()}
        check_objective(objective, direction)
        self.request = check_request(space, task, objective, direction, history, keep, mode, max_startup_s)
        self.decision = TuningDecision()
        self._given_args: Any = None
        self._explicit: frozenset[str] = frozenset()
        super().__init__(*args, **kwargs)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, and remember which values were written by the user.

        Args:
            parser: The parser.
            args: As for ``LightningCLI``.
        """
        super().parse_arguments(parser, args)
        self._given_args = sys.argv[1:] if args is None else args
        try:
            is_object = isinstance(self._given_args, Mapping) or type(self._given_args).__name__ == "Namespace"
            with contextlib.redirect_stderr(io.StringIO()):  # what the parser says of this second reading would puzzle
                if is_object:
                    written = parser.parse_object(self._given_args, defaults=False)
                else:
                    written = parser.parse_args(tunable_arguments(self._given_args), defaults=False)
            self._explicit = frozenset(path for path, _ in flat(written))
        except (Exception, SystemExit) as error:  # nothing is rewritten where nobody knows what is the user's
            self._explicit = frozenset(path for path, _ in flat(self.config))
            report(self, "reading which values were given", error)

    def before_instantiate_classes(self) -> None:
        """Rewrite the configuration."""
        super().before_instantiate_classes()
        if self.subcommand not in (None, "fit"):
            return
        given = frozenset(path.removeprefix(self._prefix) for path in self._explicit)
        try:
            self.decision = tune(ConfigurationHost(self, self.request, given), self.request)
        except MetaHPError:
            raise
        except Exception as error:
            report(self, "rewriting the configuration", error)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with the callback in it.

        Args:
            **kwargs: Further arguments of the Trainer.
        """
        trainer = super().instantiate_trainer(**kwargs)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        ours = next((callback for callback in callbacks if isinstance(callback, MetaHPCallback)), None)
        if ours is None:
            request = self.request
            ours = MetaHPCallback(request.objective, request.direction, task=request.task, history=request.history)
            # First, since Lightning wants checkpoints last.
            callbacks.insert(0, ours)
        decision = self.decision
        ours.run_log.advice = AppliedRecommendation(decision.followed_id, decision.changes, self.request.tunable, decision.pending)
        return trainer

    @property
    def own_config(self) -> Any:
        """Configuration of the running subcommand."""
        return self.config if self.subcommand is None else self.config[self.subcommand]

    @property
    def own_parser(self) -> Any:
        """Parser of the running subcommand."""
        return self._parser(self.subcommand)

    @property
    def default_model_class(self) -> Any:
        """Class of the model, where the configuration names none."""
        return self._model_class

    @property
    def _prefix(self) -> str:
        return "" if self.subcommand is None else f"{self.subcommand}."

    def rewrite(self, values: Mapping[str, Any]) -> None:
        """Parse again with other values, so that links, types and ``config.yaml`` follow.

        Args:
            values: Dotted key -> value.
        """
        seed = self.own_config.get("seed_everything")
        args = self._given_args
        if isinstance(args, Mapping) or type(args).__name__ == "Namespace":
            changed = args.clone() if hasattr(args, "clone") else json.loads(json.dumps(args))
            overlay = self.parser.parse_object(changed)
            for path, value in values.items():
                overlay[f"{self._prefix}{path}"] = value
            self.config = self.parser.parse_object(overlay)
        else:
            self.config = self.parser.parse_args([*args, *(as_argument(path, value) for path, value in values.items())])
        self.own_config["seed_everything"] = seed
        if "config_dump" in vars(self):  # older releases have written down by now what the objects will keep as their hparams
            dumped = json.loads(self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="json"))
            self.config_dump = dumped if self.subcommand is None else dumped[self.subcommand]
