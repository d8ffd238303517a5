"""The registry: what a hyperparameter is, one row each.

Every other module asks these rows: the history for canonical names, the meta-model for scales, the tuning decision and the hosts for what
may be rewritten, what follows from it and how it is read back. A hyperparameter that is rewritten by every host takes one row here, and a
reader or writer in a host only where that host keeps it in a place of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache

LIGHTNING = "lightning"
TRANSFORMERS = "transformers"

PER_DEVICE_BATCH_SIZE = "per_device_batch_size"
GLOBAL_BATCH_SIZE = "global_batch_size"
ACCUMULATION = "gradient_accumulation_steps"


class Scale(StrEnum):
    """How values are spread."""

    LOG = "log"
    LINEAR = "linear"
    INTEGER = "integer"
    SHARE = "share"
    """A number in [0, 1]."""
    CHOICE = "choice"


class Role(StrEnum):
    """What a hyperparameter belongs to."""

    OPTIMIZER = "optimizer"
    DATA = "data"
    MODEL = "model"
    LENGTH = "length"
    RUN = "run"
    """Where and how a program runs; nothing is learned from it and nothing tunes it."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One row of the registry.

    Attributes:
        name: Canonical name.
        role: What it belongs to.
        scale: How its values are spread.
        aliases: Other spellings, lower case with underscores.
        low: Smallest value that makes sense.
        high: Largest value that makes sense.
        is_high_open: Whether ``high`` itself is excluded.
        conservative_in: Frameworks in which it may be rewritten without a space; ``"*"`` is every one.
        keeps_shapes: Whether weights made with one value fit a model with another, so that a value can be taken back.
        raises_cost: Whether a larger value makes a run longer.
        is_always_log: Whether it is on a logarithmic scale even where the values seen do not show it.
        group_key: Key of it in an optimizer's parameter groups. Part of the optimizer's state, which a resumed run loads.
        readings: Scoped readings that repeat it; they inherit its source.
        trainer_fields: Framework -> name of the trainer's own argument that holds it.
        reads_live: Frameworks whose loop reads that argument at every step, so that the argument is what is in force.
        used_by: Parts of the names of the optimizers that use it; empty for all of them.
    """

    name: str
    role: Role
    scale: Scale
    aliases: tuple[str, ...] = ()
    low: float = 0.0
    high: float = math.inf
    is_high_open: bool = False
    conservative_in: frozenset[str] = frozenset()
    keeps_shapes: bool = True
    raises_cost: bool = False
    is_always_log: bool = False
    group_key: str | None = None
    readings: tuple[str, ...] = ()
    trainer_fields: Mapping[str, str] = field(default_factory=dict)
    reads_live: frozenset[str] = frozenset()
    used_by: tuple[str, ...] = ()

    @property
    def is_count(self) -> bool:
        """Whether only whole numbers make sense: there is no half sample, but half an epoch."""
        return self.scale is Scale.INTEGER and self.low >= 1

    def is_conservative(self, framework: str = "*") -> bool:
        """Say whether it may be rewritten without a space."""
        return "*" in self.conservative_in or framework in self.conservative_in


_EVERYWHERE = frozenset({"*"})
_ADAM_LIKE = ("adam", "lamb", "lion", "ademamix")

REGISTRY: tuple[Hyperparameter, ...] = (
    Hyperparameter(
        "learning_rate",
        Role.OPTIMIZER,
        Scale.LOG,
        ("lr", "learningrate", "eta0", "learning_rate_init", "base_lr", "init_lr", "initial_lr", "max_lr", "body_embedding_learning_rate"),
        conservative_in=_EVERYWHERE,
        is_always_log=True,
        group_key="lr",
        readings=("optimizer.lr",),
        trainer_fields={TRANSFORMERS: "learning_rate"},
    ),
    Hyperparameter(
        "weight_decay",
        Role.OPTIMIZER,
        Scale.LOG,
        ("wd", "weightdecay", "l2", "l2_weight"),
        conservative_in=_EVERYWHERE,
        group_key="weight_decay",
        readings=("optimizer.weight_decay",),
        trainer_fields={TRANSFORMERS: "weight_decay"},
    ),
    Hyperparameter(
        "momentum",
        Role.OPTIMIZER,
        Scale.SHARE,
        high=1.0,
        is_high_open=True,
        conservative_in=_EVERYWHERE,
        group_key="momentum",
        readings=("optimizer.momentum",),
    ),
    Hyperparameter(
        "dropout",
        Role.MODEL,
        Scale.SHARE,
        ("dropout_rate", "dropout_prob", "drop_rate", "p_dropout", "dropout_p", "hidden_dropout_prob", "max_dropout"),
        high=1.0,
        conservative_in=_EVERYWHERE,
    ),
    Hyperparameter(
        "warmup_ratio", Role.OPTIMIZER, Scale.SHARE, ("warmup_proportion", "warmup_fraction"), high=1.0, conservative_in=_EVERYWHERE
    ),
    Hyperparameter(
        "warmup_steps",
        Role.OPTIMIZER,
        Scale.INTEGER,
        ("num_warmup_steps",),
        conservative_in=_EVERYWHERE,
        trainer_fields={TRANSFORMERS: "warmup_steps"},
    ),
    Hyperparameter(
        PER_DEVICE_BATCH_SIZE,
        Role.DATA,
        Scale.INTEGER,
        ("batch_size", "bs", "batchsize", "per_device_train_batch_size", "train_batch_size", "embedding_batch_size"),
        low=1,
        conservative_in=_EVERYWHERE,
        readings=(GLOBAL_BATCH_SIZE,),
        trainer_fields={TRANSFORMERS: "per_device_train_batch_size"},
    ),
    Hyperparameter(
        GLOBAL_BATCH_SIZE,
        Role.DATA,
        Scale.INTEGER,
        ("effective_batch_size", "total_train_batch_size", "global_train_batch_size"),
        low=1,
        conservative_in=_EVERYWHERE,
    ),
    Hyperparameter(
        ACCUMULATION,
        Role.DATA,
        Scale.INTEGER,
        ("accumulate_grad_batches", "grad_accum", "accumulation_steps"),
        low=1,
        trainer_fields={LIGHTNING: "accumulate_grad_batches", TRANSFORMERS: ACCUMULATION},
        reads_live=frozenset({TRANSFORMERS}),
    ),
    Hyperparameter(
        "max_grad_norm",
        Role.OPTIMIZER,
        Scale.LOG,
        ("gradient_clip_val", "grad_clip", "clip_grad_norm"),
        # transformers clips every run by default, so there the bound is a hyperparameter of every run.
        conservative_in=frozenset({TRANSFORMERS}),
        trainer_fields={LIGHTNING: "gradient_clip_val", TRANSFORMERS: "max_grad_norm"},
        reads_live=frozenset({TRANSFORMERS}),
    ),
    Hyperparameter(
        "num_epochs",
        Role.LENGTH,
        Scale.INTEGER,
        ("max_epochs", "num_train_epochs", "epochs", "n_epochs", "embedding_num_epochs"),
        raises_cost=True,
        trainer_fields={LIGHTNING: "max_epochs", TRANSFORMERS: "num_train_epochs"},
    ),
    Hyperparameter(
        "max_steps",
        Role.LENGTH,
        Scale.INTEGER,
        low=-1,
        raises_cost=True,
        trainer_fields={LIGHTNING: "max_steps", TRANSFORMERS: "max_steps"},
    ),
    Hyperparameter(
        "num_layers",
        Role.MODEL,
        Scale.INTEGER,
        ("n_layers", "nlayers", "n_layer", "layers", "depth", "num_hidden_layers", "n_hidden_layers"),
        low=1,
        keeps_shapes=False,
        raises_cost=True,
    ),
    Hyperparameter(
        "hidden_size",
        Role.MODEL,
        Scale.INTEGER,
        ("hidden_dim", "hidden", "width", "n_units", "num_units", "units", "max_units", "d_model", "n_embd"),
        low=1,
        keeps_shapes=False,
        raises_cost=True,
    ),
    Hyperparameter(
        "optimizer",
        Role.OPTIMIZER,
        Scale.CHOICE,
        ("optim", "optimizer_name", "optimizer_class", "opt"),
        keeps_shapes=False,
        trainer_fields={TRANSFORMERS: "optim"},
    ),
    Hyperparameter(
        "lr_scheduler",
        Role.OPTIMIZER,
        Scale.CHOICE,
        ("lr_scheduler_type", "scheduler", "scheduler_name"),
        keeps_shapes=False,
        trainer_fields={TRANSFORMERS: "lr_scheduler_type"},
    ),
    Hyperparameter("adam_beta1", Role.OPTIMIZER, Scale.SHARE, high=1.0, is_high_open=True, keeps_shapes=False, used_by=_ADAM_LIKE),
    Hyperparameter("adam_beta2", Role.OPTIMIZER, Scale.SHARE, high=1.0, is_high_open=True, keeps_shapes=False, used_by=_ADAM_LIKE),
    Hyperparameter("adam_epsilon", Role.OPTIMIZER, Scale.LOG, keeps_shapes=False, used_by=_ADAM_LIKE),
    Hyperparameter("label_smoothing_factor", Role.MODEL, Scale.SHARE, high=1.0, is_high_open=True, keeps_shapes=False),
    Hyperparameter("seed", Role.RUN, Scale.CHOICE, ("random_seed", "random_state"), keeps_shapes=False),
)
"""The rows, in the order in which a reader would look for them."""

_BY_NAME = {row.name: row for row in REGISTRY}
NAMES = frozenset(_BY_NAME)
"""Canonical names with a row."""
BY_ALIAS: Mapping[str, str] = {alias: row.name for row in REGISTRY for alias in (row.name, *row.aliases)}
"""Every spelling -> canonical name."""


def hyperparameter(name: str) -> Hyperparameter | None:
    """Return the row of a canonical name, None where the registry has none."""
    return _BY_NAME.get(name)


_OF_RUN = re.compile(
    r"^(precision|devices|num_nodes|strategy|accelerator|num_workers|pin_memory|persistent_workers|"
    r"prefetch_factor|output_dir|run_name|metahp|report_to|disable_tqdm|do_train|do_eval|do_predict|bf16.*|fp16.*|tf32|"
    r"(dataloader|logging|save|eval|hub|push_to_hub|fsdp|deepspeed|ddp|log|torch_compile|load_best|include)_.*|"
    r"use_(cpu|mps_device|ipex|legacy_prediction_loop|liger_kernel|cache|return_dict|auth_token|fast_tokenizer|distributed_sampler)|"
    r"metric_for_best_model|greater_is_better|.*_(dir|path|file|root|name|id|url|interval)|remove_unused_columns|vocab_size|"
    r"max_position_embeddings|.*_token_id|architectures|transformers_version|.*n_parameters|enable_.*|check_val.*|val_check.*)$"
)
"""Names without a row that have the role of a run: too many to list, and made up by every framework."""


_SEED = re.compile(r"(^|[._-]|__)(seed|random_?state|rng)$|^(seed_everything|seed_value|manual_seed)$", re.IGNORECASE)
"""Names of seeds, in groups too: ``data_seed``, ``bagging_seed``, ``clf__random_state``, ``trainer.seed_everything``."""

_OUTPUT_PLACE = re.compile(
    r"^(.*[._])?((output|out|logging|log|save|ckpt|checkpoint|checkpoints|results?|work|run|default_root)_?(dir|path|folder)|save_to|"
    r"(run|exp|experiment|trial|job|session|checkpoint)_?(name|id|version|number)|hub_model_id|timestamp|n_parameters|num_parameters|metahp)$",
    re.IGNORECASE,
)
"""Names of where a run is written, and what follows from the others: they differ between runs of one configuration."""


@cache
def is_seed_name(name: str) -> bool:
    """Say whether a name is that of a seed: runs that differ in it only are draws of one configuration."""
    return _SEED.search(name) is not None


@cache
def is_output_place(name: str) -> bool:
    """Say whether a name says where a run is written or what it is called, so that it tells no configurations apart."""
    return _OUTPUT_PLACE.match(name) is not None


def is_of_run(name: str) -> bool:
    """Say whether a name is about where and how a program runs: nothing is learned from it."""
    row = _BY_NAME.get(name)
    return row.role is Role.RUN if row is not None else is_seed_name(name) or _OF_RUN.match(name) is not None


def is_always_log(name: str) -> bool:
    """Say whether a name is on a logarithmic scale whatever values were seen."""
    row = _BY_NAME.get(name)
    return row is not None and row.is_always_log


def has_row(name: str) -> bool:
    """Say whether a canonical name has a row."""
    return name in _BY_NAME


def has_scale(name: str, scale: Scale) -> bool:
    """Say whether a name has a row with this scale."""
    row = _BY_NAME.get(name)
    return row is not None and row.scale is scale


def aliases_of(name: str) -> tuple[str, ...]:
    """Return the other spellings of a canonical name; none where it has no row."""
    row = _BY_NAME.get(name)
    return () if row is None else row.aliases


NEEDS_SPACE = "without a space it is never rewritten; list it in space to have it tuned"
"""Why a hyperparameter that was tuned, and is not among the conservative names, is not advised."""


@cache
def conservative_names(framework: str = "*") -> frozenset[str]:
    """Return what may be rewritten without a space: never the architecture, never the length of training."""
    return _names(row for row in REGISTRY if row.is_conservative(framework))


@cache
def names_that_keep_shapes() -> frozenset[str]:
    """Return the names that can be taken back: weights of either value fit the same model."""
    return _names(row for row in REGISTRY if row.keeps_shapes)


@cache
def names_in_optimizer_state() -> frozenset[str]:
    """Return the names whose value is part of the optimizer's state."""
    return _names(row for row in REGISTRY if row.group_key is not None)


@cache
def names_made_with_optimizer() -> frozenset[str]:
    """Return the names whose value an optimizer is made with, and its own: an optimizer that exists keeps them."""
    return names_in_optimizer_state() | _names(row for row in REGISTRY if row.used_by or row.name == "optimizer")


@cache
def names_with_role(role: Role) -> frozenset[str]:
    """Return the names of one role."""
    return _names(row for row in REGISTRY if row.role is role)


@cache
def trainer_fields(framework: str) -> Mapping[str, str]:
    """Return what a framework's trainer holds itself: canonical name -> its argument."""
    return {row.name: row.trainer_fields[framework] for row in REGISTRY if framework in row.trainer_fields}


def _names(rows: Iterable[Hyperparameter]) -> frozenset[str]:
    return frozenset(row.name for row in rows)
