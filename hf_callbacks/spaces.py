"""From the names a user wrote in ``space`` to the question for the meta-model, and from its answer to the host's fields.

Two names need translation. The meta-model knows one batch, the global one: per device x accumulation x processes. And the host has
one field for warm-up, ``warmup_steps``, that means a share of the training below 1 and steps otherwise.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from hf_callbacks.arguments import WARM_UP, argument_values, global_batch_size
from hf_callbacks.provenance import plain_class
from metahp_tuning.batch_split import global_space, per_device_config
from metahp_tuning.precedence import Setting
from metamodel.space.batch import BatchLayout
from metamodel.space.dimensions import parse_space
from store.errors import SpaceError, UnknownHyperparameterError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE, conservative_names
from store.names import canonical_name

WARM_UP_RATIO = "warmup_ratio"
CONSERVATIVE = conservative_names() | {"max_grad_norm"}
"""What may be rewritten here without a space: the host clips gradients by default, so the bound is a knob of every run."""

MAX_ACCUMULATION = 64
"""Accumulated batches that a global batch named in a space may be split into."""

_N_NEAREST = 3


def checked_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's space checked, with the warm-up under the name of what is meant: a share or steps.

    Raises:
        SpaceError: If it is malformed, or names the warm-up twice.
    """
    dimensions = parse_space(space)
    result: dict[str, Any] = {}
    for raw, values in space.items():
        name = raw
        if canonical_name(raw) == WARM_UP and (dimensions[canonical_name(raw)].high or 0.0) < 1:
            name = WARM_UP_RATIO
        if name in result or {canonical_name(other) for other in (*result, name)} >= {WARM_UP, WARM_UP_RATIO}:
            raise SpaceError(f"A space must name a field once, but got {raw!r} beside another name of {WARM_UP}. Leave one of them out.")
        result[name] = values
    return result


def check_names_of(
    names: Collection[str], args: object, available: Collection[str], elsewhere: Collection[str], where: str | None = None
) -> None:
    """Check that names can be rewritten.

    Args:
        names: Names the user wrote, raw or canonical.
        args: The training arguments.
        available: Raw names that can be rewritten.
        elsewhere: Names in the model's configuration that cannot be rewritten from here.
        where: What should have the names, for the message.

    Raises:
        UnknownHyperparameterError: If a name is none of them; the message names the nearest.
    """
    known = {*available, *(canonical_name(raw) for raw in available), GLOBAL_BATCH_SIZE, WARM_UP_RATIO}
    rule = f"A name to rewrite must be a hyperparameter of {where or plain_class(type(args)).__name__}"  # type: ignore[arg-type]
    for name in names:
        if name in known or canonical_name(name) in known:
            continue
        if canonical_name(name) in {canonical_name(raw) for raw in elsewhere}:
            raise UnknownHyperparameterError(
                f"{rule}, but {name!r} is one of the model's configuration. Build the Trainer, then call apply(trainer, space=...)."
            )
        if hasattr(args, name):
            raise UnknownHyperparameterError(
                f"{rule} that shapes the training, but {name!r} says where it runs, what is logged or saved. Leave it out."
            )
        close = difflib.get_close_matches(name, sorted(known), n=_N_NEAREST, cutoff=0.55)
        nearest = ", ".join(map(repr, close))
        possible = f"nearest are {nearest}. Did you mean {close[0]!r}?" if close else f"possible are {', '.join(sorted(known))}."
        raise UnknownHyperparameterError(f"{rule}, but got {name!r}; {possible}")


def permitted_names(space: Mapping[str, Any]) -> list[str]:
    """Return the canonical names a space permits to rewrite; a global batch permits both of its factors."""
    names = [canonical_name(raw) for raw in space]
    return [*names, PER_DEVICE_BATCH_SIZE, ACCUMULATION] if GLOBAL_BATCH_SIZE in names else names


def settings_for(space: Mapping[str, Any] | None, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the settings with the warm-up under the name the space uses for it."""
    result = dict(settings)
    named = {canonical_name(raw) for raw in space or ()}
    for wanted, other in ((WARM_UP, WARM_UP_RATIO), (WARM_UP_RATIO, WARM_UP)):
        if wanted in named and other in result:
            result[wanted] = result.pop(other)
    return result


class BatchPlan:
    """How this run's batch is put together, what is asked about it, and how an answer is written.

    Args:
        args: The training arguments.
        space: The user's space as far as it may be rewritten, None for the conservative one.
        cap: Largest batch per device that is possible, None for no limit.
    """

    def __init__(self, args: Any, space: Mapping[str, Any] | None, cap: float | None) -> None:
        per_device = max(1, args.per_device_train_batch_size)
        accumulation = max(1, args.gradient_accumulation_steps)
        world = max(1, global_batch_size(args) // (per_device * accumulation))
        self.layout = BatchLayout(per_device, accumulation, world)
        self._space = space
        self._cap = cap

    @property
    def asked(self) -> dict[str, Any] | None:
        """The space to ask the meta-model with: its batch is global."""
        return None if self._space is None else global_space(self._space, self.layout)

    @property
    def limits(self) -> dict[str, float]:
        """Largest global batch that is possible."""
        return {} if self._cap is None else {PER_DEVICE_BATCH_SIZE: self._cap * self.layout.factor}

    def fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a recommendation's configuration by canonical name, its batch per device and accumulated."""
        space = self._space
        if space is not None and GLOBAL_BATCH_SIZE in {canonical_name(raw) for raw in space}:
            from optuna.distributions import IntDistribution

            # Which of the two factors makes up the batch is nobody's choice then; the one that fits is taken.
            space = {**space, ACCUMULATION: IntDistribution(1, MAX_ACCUMULATION)}
            space = {raw: values for raw, values in space.items() if canonical_name(raw) != PER_DEVICE_BATCH_SIZE}
        return per_device_config(config, self.layout, space, max_per_device=self._cap)


def current_values(args: Any, values: Mapping[str, Any], ratio: float | None) -> dict[str, Any]:
    """Return the user's own configuration as a run would record it, for the meta-model.

    Args:
        args: The training arguments.
        values: Hyperparameters read from arguments and model.
        ratio: Share of the training that warms up, None where unknown.
    """
    known = {**argument_values(args), **values, GLOBAL_BATCH_SIZE: global_batch_size(args)}
    return known if ratio is None else {**known, WARM_UP_RATIO: ratio}
