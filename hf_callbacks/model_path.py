"""A model that is given by the path of its weights: what it will be, without loading them."""

from __future__ import annotations

import logging
from typing import Any

import torch
import transformers
from torch import nn

from hf_callbacks.trainer_kind import loads_classifier
from metahp_tuning.random_states import preserved_rng

logger = logging.getLogger(__name__)


def without_weights(model: Any, args: Any) -> nn.Module | None:
    """Return a model as it is, of SetFit's the body; for the path of one the same model without memory, on torch's ``meta`` device.

    Args:
        model: A model, or the name or path that a Trainer loads it from.
        args: The training arguments: TRL's Trainers differ in the class that they load.

    Returns:
        The model; None where there is none or its configuration cannot be read.
    """
    if not isinstance(model, str):
        body = getattr(model, "model_body", None)  # what SetFit's model holds beside its head
        return model if isinstance(model, nn.Module) or body is None else body  # type: ignore[no-any-return]
    try:
        trusts = bool(getattr(args, "trust_remote_code", False))
        config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=trusts)
        if loads_classifier(args):
            config.num_labels = 1  # a score
        with preserved_rng(), torch.device("meta"):
            built: nn.Module = _class_of(config, args)._from_config(config)
    except Exception as error:  # the Trainer will tell better what is wrong with the path
        logger.debug("The configuration at %s could not be used: %s", model, error)
        return None
    built.config.name_or_path = model  # type: ignore[union-attr]
    return built


def _class_of(config: Any, args: Any) -> Any:
    if loads_classifier(args):
        return transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    names = config.architectures or []
    found = getattr(transformers, names[0], None) if names else None
    return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)] if found is None else found
