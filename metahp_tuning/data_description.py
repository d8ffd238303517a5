"""The description of data: their size, names, schema and content, read from the objects themselves.

Every host uses these functions, so that the same training gives the same description. Nothing here raises for an object it does not know:
what cannot be read is absent. Random states, generators and streams are as before afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from torch.utils.data import IterableDataset, TensorDataset

from metahp_tuning.data_correlations import correlations_of
from metahp_tuning.data_names import GENERIC_BUILDERS, dataset_names, environment_names, fold_names, hyperparameter_names
from metahp_tuning.data_parts import base_of, content_names, data_sets, sample_count, unwrap
from metahp_tuning.data_schema import columns_schema, count_classes, label_schema, length_hparams, shape_and_dtype, split_sample
from metahp_tuning.data_selection import selection_of
from metahp_tuning.data_sketch import sketch_of
from metahp_tuning.random_states import preserved_generators, preserved_rng
from metahp_tuning.token_blocks import token_blocks

_log = logging.getLogger(__name__)


def describe_dataset(dataset: object, hparams: Mapping[str, Any] | None = None, tunable: Collection[str] = ()) -> dict[str, Any]:
    """Describe a data set by its size, its names, its schema and a sketch of its content.

    A stream is never iterated.

    Args:
        dataset: A torch data set, a Hugging Face ``datasets.Dataset``, anything with ``__getitem__``, or a dictionary of such: all of
            them are counted, and the first one's sample is described.
        hparams: Hyperparameters among which the length of an axis is looked for.
        tunable: Names that may be tuned; a length among them tells nothing apart.

    Returns:
        Those of ``dataset_class``, ``n_train``, ``input_shape``, ``input_dtype``, ``target_shape``, ``target_dtype``, ``n_classes``,
        ``lengths``, ``pieces``, ``data_names``, ``schema``, ``sketch``, ``correlations`` and ``fold`` that could be found out, named as in
        ``TaskDescription``.
    """
    if dataset is None:
        return {}
    n_samples, whole, dataset = sample_count(dataset), dataset, data_sets(dataset)[0]
    base = unwrap(dataset)
    found: dict[str, Any] = {"dataset_class": _dataset_class(base), "schema": {"rows": "stream"}}
    with suppress(Exception):  # a user's attributes may be anything
        found["data_names"] = dataset_names(whole)
        found["fold"] = fold_names(getattr(base_of(dataset), "__dict__", {}))
    if n_samples is not None:
        found["n_train"] = n_samples
    is_stream = isinstance(dataset, IterableDataset) or not hasattr(type(dataset), "__getitem__")
    if is_stream or n_samples == 0:
        with suppress(Exception):  # columns are known of some streams
            found["schema"] |= columns_schema(dataset, None) | label_schema(dataset)
        return _known(found)
    found["schema"] = {"rows": "indexed"}
    with suppress(Exception):  # a user's indices may be anything
        found["schema"] |= selection_of(dataset)
    found["sketch"], found["correlations"] = sketch_of(whole), correlations_of(whole)
    is_tensors = isinstance(base, TensorDataset)
    try:
        with preserved_rng(), preserved_generators(dataset):
            sample = dataset[0]  # type: ignore[index]
    except Exception as error:
        _log.debug("no sample of %s could be read: %s", found["dataset_class"], error)
        return _known(found)
    inputs, target, target_key = _split(sample, is_tensors=is_tensors)
    lengths = length_hparams(hparams or {}, getattr(base_of(dataset), "__dict__", {}), getattr(base, "__dict__", {}))
    _add_shapes(found, inputs, target, is_padded=not is_tensors, lengths=lengths)
    if len(found.get("input_shape", ())) == 1 and "int" in found["input_dtype"]:
        with suppress(Exception), preserved_rng(), preserved_generators(dataset):  # a user's rows may be anything
            size, found["pieces"] = token_blocks(dataset, lambda row: _split(row, is_tensors=is_tensors)[0])
            found["lengths"] += () if size is None or is_tensors else (size,)
    tuned = length_hparams({name: value for name, value in (hparams or {}).items() if name in tunable})
    found["lengths"] = tuple(size for size in found["lengths"] if size not in tuned) or None
    if found.get("target_shape") in ((), (1,)) and found["target_dtype"].startswith(("int", "uint", "bool")):
        with suppress(Exception):  # labels may live in any container; not counting them is allowed
            found["n_classes"] = count_classes(base, target_key)
    with suppress(Exception):  # a user's features may be anything
        found["schema"] |= columns_schema(dataset, sample) | label_schema(dataset, target_key)
    return _known(found)


def _is_played(value: Any) -> bool:
    return callable(getattr(type(value), "reset", None)) and callable(getattr(type(value), "step", None))


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value is not None and value != {}}


def _dataset_class(dataset: object) -> str:
    """Every Hugging Face data set has one class, so the name it was loaded under is added where it says something."""
    name = type(dataset).__qualname__
    builder = getattr(getattr(dataset, "info", None), "builder_name", None)
    return f"{name}:{builder}" if isinstance(builder, str) and builder not in GENERIC_BUILDERS else name


def _split(sample: Any, *, is_tensors: bool) -> tuple[Any, Any, str | None]:
    rows = {name: sample[name] for name in content_names(sample)} if isinstance(sample, Mapping) else sample
    return split_sample(rows, is_tensors=is_tensors)


def _add_shapes(found: dict[str, Any], inputs: Any, target: Any, *, is_padded: bool, lengths: Collection[int]) -> None:
    sizes: tuple[int, ...] = ()
    for part, value in (("input", inputs), ("target", target)):
        spec = shape_and_dtype(value, is_padded=is_padded, lengths=lengths)
        if spec is not None:
            found[f"{part}_shape"], found[f"{part}_dtype"] = spec[:2]
            sizes += spec[2]
    found["lengths"] = sizes


def named_by_hparams(
    module_hparams: Mapping[str, Any], data_hparams: Mapping[str, Any], tunable: Collection[str] = (), owners: Collection[object] = ()
) -> dict[str, dict[str, Any]]:
    """Return what hyperparameters and environments say of the data: ``data_names`` and ``fold``, as in ``TaskDescription``.

    Args:
        module_hparams: Hyperparameters of the model.
        data_hparams: Hyperparameters of the data module.
        tunable: Names that may be tuned and therefore tell nothing apart.
        owners: Objects that may hold environments.
    """
    return {
        "data_names": {
            **hyperparameter_names(module_hparams, tunable),
            **hyperparameter_names(data_hparams, tunable, are_of_data=True),
            **environment_names(*owners, *(value for value in (*module_hparams.values(), *data_hparams.values()) if _is_played(value))),
        },
        "fold": {**fold_names(module_hparams, tunable), **fold_names(data_hparams, tunable)},
    }
