"""The framework's own loggers: they record what is in force, once, with where it came from.

Lightning logs the hyperparameters of module and datamodule itself, right after ``on_fit_start``; what was rewritten is in them by then.
Left to do is to note who chose a value, where a logger has a place for that, and to keep a logger that refuses changed values (MLflow)
from ending a second fit.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.nested_values import items_of
from lightning_metahp.settings import datamodule_of
from lightning_metahp.trainer_internals import is_kind
from metahp_tuning.messages import describe_change

if TYPE_CHECKING:
    from lightning_metahp.run_log import AppliedRecommendation

_log = logging.getLogger(__name__)

TAG_PREFIX = "metahp."
CSV_FILE = "metahp.json"
"""Written beside ``hparams.yaml`` by the CSV logger, which has no tags."""


def settle_loggers(trainer: Trainer, module: LightningModule, advice: AppliedRecommendation) -> None:
    """Tell the loggers where rewritten values come from. To be called in ``on_fit_start``, on every rank."""
    if not trainer.is_global_zero:
        return
    tags = provenance(advice)
    loggers: list[Any] = list(trainer.loggers)
    for logger in loggers:
        try:
            if is_kind(logger, "MLFlowLogger"):
                _settle_mlflow(trainer, module, logger, tags)
            elif tags and is_kind(logger, "TensorBoardLogger"):
                logger.experiment.add_text("metahp", "  \n".join(f"{name}: {text}" for name, text in tags.items()))
            elif tags and is_kind(logger, "CSVLogger"):
                folder = Path(logger.log_dir)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / CSV_FILE).write_text(json.dumps(tags, indent=2) + "\n", encoding="utf-8")
        except Exception as error:  # a logger of somebody else's; the history has it all
            _log.warning("metahp: %s did not get where its hyperparameters come from: %s", type(logger).__name__, error)


def provenance(advice: AppliedRecommendation) -> dict[str, str]:
    """Return what was rewritten as tags: ``metahp.lr`` -> ``lr 0.001 -> 0.03 (metahp)``."""
    tags = {f"{TAG_PREFIX}{change.raw_name}": f"{describe_change(change)} ({change.source})" for change in advice.changes}
    return tags | ({f"{TAG_PREFIX}recommendation": advice.recommendation_id} if tags and advice.recommendation_id else {})


def _settle_mlflow(trainer: Trainer, module: LightningModule, logger: Any, tags: dict[str, str]) -> None:
    """Set tags; values that this MLflow run has under the same name already become tags as well, since MLflow lets none change."""
    client, run_id = logger.experiment, logger.run_id
    known = client.get_run(run_id).data.params
    changed = {name: value for name, value in _logged_hparams(trainer, module).items() if name in known and known[name] != str(value)[:250]}
    for name, text in tags.items():
        client.set_tag(run_id, name, text)
    if not changed:
        return
    for name, value in changed.items():
        client.set_tag(run_id, f"{TAG_PREFIX}now.{name}", str(value))
    # Only this logger has a copy of its own of how it logs, so only it leaves them out.
    original = logger.log_hyperparams

    def log_the_rest(params: Any, *args: Any, **kwargs: Any) -> None:
        vars(logger).pop("log_hyperparams", None)
        given = _flat(dict(params) if isinstance(params, dict) or hasattr(params, "items") else dict(vars(params)))
        original({name: value for name, value in given.items() if name not in changed}, *args, **kwargs)

    vars(logger)["log_hyperparams"] = log_the_rest


def _logged_hparams(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for holder in (module, datamodule_of(trainer)):
        if holder is not None and getattr(holder, "_log_hyperparams", False):
            found |= _flat(dict(holder.hparams_initial))
    return found


def _flat(hparams: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters as MLflow gets them: what one holds by name is called ``cfg/optim/lr``."""
    found: dict[str, Any] = {}
    for name, value in hparams.items():
        inner = {} if isinstance(value, partial) else _flat(items_of(value))
        found |= {f"{name}/{path}": leaf for path, leaf in inner.items()} or {name: value}
    return found
