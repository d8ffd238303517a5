"""What a model is, read from the object itself.

Both host frameworks use these functions, so that the same training gives the same description under either. Nothing here raises
for an object it does not know: what cannot be read is absent.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import nn


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Describe a model.

    Returns:
        ``model_class``, ``model_family``, ``n_parameters``, ``width`` and ``is_pretrained``, named as in ``TaskDescription``.
    """
    n_parameters = parameter_count(module)
    return {
        "model_class": model_class_name(module),
        "model_family": model_family(module),
        "n_parameters": n_parameters,
        "width": model_width(module),
        "is_pretrained": starts_pretrained(module) if n_parameters else None,
    }


def model_class_name(module: nn.Module) -> str:
    """Return the class name of a model, with the class it is nested in."""
    return type(module).__qualname__


def model_family(module: nn.Module) -> str:
    """Return ``transformer``, ``rnn``, ``cnn``, ``mlp`` or ``other``: the most telling kind of layer found in a model."""
    families = {_layer_family(part) for part in module.modules()}
    return next((family for family in ("transformer", "rnn", "cnn", "mlp") if family in families), "other")


def _layer_family(layer: nn.Module) -> str | None:
    name = type(layer).__name__
    # Convolutional nets weigh positions and channels by small blocks which are called attention as well.
    lowered = name.lower()
    has_attention = "attention" in lowered and not any(word in lowered for word in ("spatial", "channel", "squeeze", "cbam"))
    if has_attention or isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return "transformer"
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase) or "LSTM" in name or "GRU" in name:
        return "rnn"
    # Lazy layers are subclasses of the ordinary ones.
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return "cnn"
    return "mlp" if isinstance(layer, nn.Linear) else None


def model_width(module: nn.Module) -> int | None:
    """Return the largest width of the layers that make a model's family, None where it has none of them.

    That is units of dense layers, channels of convolutions, the state of recurrent layers, and in a transformer what every block is handed:
    its dense layers widen and narrow again, so the narrow side counts.
    """
    family = model_family(module)
    widths = [width for layer in module.modules() if (width := _layer_width(layer, family)) is not None]
    return max(widths, default=None)


def _layer_width(layer: nn.Module, family: str) -> int | None:
    if family == "cnn":
        return _size(layer, "out_channels")
    if family == "rnn" and isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return _size(layer, "hidden_size")
    wide, narrow = _size(layer, "out_features"), _size(layer, "in_features")
    if wide is None or family == "mlp":
        return wide
    return wide if narrow is None else min(wide, narrow)


def _size(layer: nn.Module, name: str) -> int | None:
    value = getattr(layer, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def starts_pretrained(module: nn.Module) -> bool:
    """Say whether training starts from trained weights, in all of a model or in a part of it, such as an encoder.

    Weights that transformers loaded are known by their name. timm and torchvision leave no name; there, normalisation layers that are no
    longer as they are made have been trained.
    """
    return bool(pretrained_name(module)) or any(_is_from_zoo(part) and _is_trained(part) for part in module.modules())


def pretrained_name(module: nn.Module) -> str:
    """Return the name or path that weights were loaded from, the whole model's before its parts'; empty where there is none."""
    for part in module.modules():
        for name in ("name_or_path", "_name_or_path"):
            with suppress(Exception):  # a user's own configuration may be anything
                found = getattr(getattr(part, "config", None), name, None)
                if isinstance(found, str) and found:
                    return found
    return ""


_MODEL_ZOOS = ("torchvision.", "timm.")


def _is_from_zoo(part: nn.Module) -> bool:
    return type(part).__module__.startswith(_MODEL_ZOOS) or getattr(part, "pretrained_cfg", None) is not None


def _is_trained(part: nn.Module) -> bool:
    """Say whether a normalisation layer in it has a shift or statistics: both are zero when it is made."""
    for layer in part.modules():
        if "Norm" not in type(layer).__name__:
            continue
        for name in ("bias", "running_mean"):
            values = getattr(layer, name, None)
            if not isinstance(values, torch.Tensor) or isinstance(values, nn.UninitializedParameter) or values.is_meta:
                continue
            if bool(values.detach().any()):
                return True
    return False


def parameter_count(module: nn.Module) -> int:
    """Return the number of parameters; those of lazy layers that have no shape yet count zero."""
    return sum(p.numel() for p in module.parameters() if not isinstance(p, nn.UninitializedParameter))
