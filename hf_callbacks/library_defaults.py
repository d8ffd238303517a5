"""Values that a library's own subclass of ``TrainingArguments`` fills in: trl's bf16, the generation batch of GRPO.

Such a class decides in its ``__post_init__`` what an untouched field becomes. That method is asked again with the field untouched, above a
stand-in for the host's own, which would set up devices anew. Nothing of a user's own subclass is run twice.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_callbacks.provenance import plain_class

_ASKED_OF_ARGUMENTS = ("device", "world_size", "n_gpu", "process_index", "local_process_index", "parallel_mode", "train_batch_size")
"""Properties that depend on devices: those of the real arguments answer."""


class _WithoutHost(TrainingArguments):
    """Stands before ``TrainingArguments`` in the method resolution order of a probe, so that the host's set-up does not run."""

    def __post_init__(self) -> None:
        """Do nothing."""


def _forwarded(name: str) -> property:
    return property(lambda probe: getattr(vars(probe)["_metahp_args"], name))


for _name in _ASKED_OF_ARGUMENTS:
    setattr(_WithoutHost, _name, _forwarded(_name))


def filled_in(args: TrainingArguments, name: str) -> Any:
    """Return what the library's class makes of an untouched field beside the others; ``dataclasses.MISSING`` where it says nothing."""
    library = next((cls for cls in plain_class(type(args)).__mro__ if _is_installed(cls)), TrainingArguments)
    item = library.__dataclass_fields__.get(name) if issubclass(library, TrainingArguments) else None
    if library is TrainingArguments or item is None or item.default is dataclasses.MISSING:
        return dataclasses.MISSING
    probe = object.__new__(_probe_class(library))
    vars(probe).update({key: copy.copy(value) if isinstance(value, dict | list) else value for key, value in vars(args).items()})
    vars(probe).update({name: item.default, "_metahp_args": args})
    # Some classes refuse their own finished fields (two that exclude each other); what was filled in until then counts.
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        probe.__post_init__()  # type: ignore[no-untyped-call]
    return getattr(probe, name)


@cache
def _probe_class(library: type[TrainingArguments]) -> type[TrainingArguments]:
    return type("_Probe", (library, _WithoutHost), {})


@cache
def _is_installed(cls: type) -> bool:
    """Say whether a class comes from an installed package rather than from the user's own code."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
