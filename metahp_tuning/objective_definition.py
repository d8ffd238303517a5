"""What changes the meaning of an objective, so that runs are comparable only in order: the loss, and how much of the data validates."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn

from metahp_tuning.data_parts import words_of
from store.names import canonical_name, is_loss_name

_SETTING_WORDS = frozenset(str.split("loss losses criterion smoothing margin kl elbo focal huber quantile quantiles"))
_SETTING_NAMES = frozenset(str.split("beta pos_weight class_weight class_weights temperature gamma_focal alpha_focal delta tau_loss"))
_PLAIN_LOSSES = frozenset({"CrossEntropyLoss", "MSELoss", "NLLLoss", "BCEWithLogitsLoss", "BCELoss"})
"""Losses that are what a task's loss is taken to be; with arguments other than the default they are others."""
_PLAIN_FUNCTIONS = frozenset({"cross_entropy", "mse_loss", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"})
_PLUMBING = frozenset({"training", "reduction", "size_average", "reduce", "ignore_index", "full", "log_input"})
_SHOWN_ITEMS = 4


def objective_definition(
    objective: str | None,
    *,
    module: nn.Module | None = None,
    hparams: Mapping[str, Any] | None = None,
    validation: str | None = None,
    unchanged: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what changes the meaning of an objective, and is not the neutral default: ``TaskDescription.comparability``.

    Args:
        objective: Name of the metric; settings of the loss count where it is a loss, or is not known yet.
        module: The model, among whose parts losses are looked for.
        hparams: Raw name -> value.
        validation: How much of the validation data counts, such as ``2 batches``; None for all of it.
        unchanged: Defaults of the hyperparameters: what equals them changes nothing.
    """
    found: dict[str, Any] = {}
    if objective is None or is_loss_name(objective):
        found |= _loss_hparams(hparams or {}, unchanged or {})
        losses = [] if module is None else _loss_modules(module)
        if losses:
            found["loss"] = losses[0] if len(losses) == 1 else losses
    return found if validation is None else {**found, "validation": validation}


def _loss_hparams(hparams: Mapping[str, Any], unchanged: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in hparams.items():
        if not isinstance(name, str) or not (_SETTING_NAMES & {name.lower()} or not _SETTING_WORDS.isdisjoint(words_of(name))):
            continue
        text = _argument(value)
        if text is None or value is False or (type(value) in (int, float) and value == 0):
            continue
        if name in unchanged and _argument(unchanged[name]) == text:
            continue
        found[canonical_name(name)] = text
    return found


def _loss_modules(module: nn.Module) -> list[str]:
    parts = [part for part in module.modules() if part is not module and _is_loss_module(part)]
    held = [value for value in vars(module).values() if isinstance(value, nn.Module) and _is_loss_module(value)]
    functions = [_argument(value) for name, value in vars(module).items() if _SETTING_WORDS & {*words_of(name)} and _is_function(value)]
    texts = {text for part in [*parts, *held] if (text := described_loss(part)) not in _PLAIN_LOSSES}
    return sorted(texts | {str(text) for text in functions if text is not None and text not in _PLAIN_FUNCTIONS})


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType | BuiltinFunctionType | partial)


def _is_loss_module(part: nn.Module) -> bool:
    name = type(part).__name__
    return isinstance(part, nn.modules.loss._Loss) or bool(re.search(r"(Loss|Criterion)(?=[A-Z\d]|$)", name))


def described_loss(loss: nn.Module) -> str:
    """Return a loss as it would be written, with the arguments that are not the default."""
    arguments, told = {}, _told_settings(loss)
    with suppress(TypeError, ValueError):  # a class without a signature
        for key, parameter in inspect.signature(type(loss).__init__).parameters.items():
            value = getattr(loss, key, None)
            if isinstance(value, nn.Module) and value is not loss and _is_loss_module(value):
                text = described_loss(value)
                is_usual = text in _PLAIN_LOSSES and parameter.default is not parameter.empty
            else:
                text = _argument(told.get(key) if _argument(value) in (None, "<lambda>") else value)
                is_usual = text is None or text in (_argument(parameter.default), type(parameter.default).__name__)
            if key not in _PLUMBING and not is_usual:
                arguments[key] = text
    shown = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in sorted(arguments.items())]
    return f"{type(loss).__name__}({', '.join(shown)})" if shown else type(loss).__name__


def _told_settings(loss: nn.Module) -> dict[str, Any]:
    """Return what a loss of sentence-transformers tells of itself, classes by their name: it may keep an argument under another name."""
    try:
        told = dict(loss.get_config_dict())  # type: ignore[operator]
    except Exception:  # there is no such method, or it cannot tell
        return {}
    return {key: value.rpartition(".")[2] if isinstance(value, str) else value for key, value in told.items()}


def _argument(value: Any) -> Any:
    """Return one argument as it is shown: a number or text as it is, many numbers by a digest, None for what says nothing."""
    if isinstance(value, torch.Tensor):
        if value.is_meta:  # a copy of the model without weights
            return None
        if value.numel() == 1:
            return round(float(value), 6)
        value = [float(item) for item in value.detach().float().cpu().reshape(-1)[:10_000]]
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list | tuple) or type(value).__module__ == "numpy":
        with suppress(Exception):  # an array of anything
            items = [f"{float(item):.4g}" for item in list(value)[:10_000]]
            text = ", ".join(items)
            return f"[{text}]" if len(items) <= _SHOWN_ITEMS else f"{len(items)} values {hashlib.sha256(text.encode()).hexdigest()[:6]}"
    if isinstance(value, type) or (callable(value) and not isinstance(value, nn.Module)):
        return getattr(value, "__name__", None) or _argument_of_partial(value)
    return None


def _argument_of_partial(value: Any) -> str | None:
    name = getattr(getattr(value, "func", None), "__name__", None)
    given = {key: _argument(item) for key, item in dict(getattr(value, "keywords", {})).items()}
    return None if name is None else f"{name}({', '.join(f'{key}={given[key]}' for key in sorted(given))})"
