"""The schema of data: columns and their types, class labels, and the shapes of a sample with free axes left out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from metahp_tuning.data_parts import TOKENIZED, base_of, is_frame, words_of
from metamodel.data.task import kind_of
from store.hyperparameters import NAMES
from store.names import canonical_name

MAX_LABELS = 1_000_000
"""Labels looked at to count the classes; a second of work at most."""
_FEW_LABELS = 10_000
_MAX_NAMES = 32
"""Names that are kept as they are; of more a digest."""

INPUT_KEYS = (
    *("input_ids", "pixel_values", "input_values", "input_features", "inputs", "input", "x"),
    *("image", "images", "img", "features", "data", "text", "sentence"),
)
TARGET_KEYS = ("labels", "label", "label_ids", "targets", "target", "y")

_LENGTH_WORDS = frozenset(
    str.split(
        "length lengths len window horizon lookback context chunk seq sequence block history past future frames timesteps steps lag lags "
        "forecast ahead image img crop resize resolution patch"
    )
)
"""Words of names of whole numbers that are the length of an axis, or the size of an image."""


def columns_schema(dataset: object, sample: Any) -> dict[str, Any]:
    """Return the columns of a data set or a sample with the kind of each, under ``columns``."""
    base = base_of(dataset)
    kinds: dict[str, str] = {}
    if type(base).__module__.startswith("datasets.") and isinstance(getattr(base, "features", None), Mapping):
        kinds = {name: _feature_kind(feature) for name, feature in dict(base.features).items()}
    elif isinstance(sample, Mapping):
        kinds = {str(name): _value_kind(value) for name, value in sample.items()}
    else:
        frames = [base, *getattr(base, "__dict__", {}).values()]
        frame = next((item for item in frames if is_frame(item) and hasattr(item, "dtypes")), None)
        array = next((item for item in frames if getattr(getattr(item, "dtype", None), "names", None)), None)
        if frame is not None and hasattr(frame, "columns"):
            kinds = {str(name): _dtype_kind(dtype) for name, dtype in zip(frame.columns, frame.dtypes, strict=False)}
        elif array is not None:
            kinds = {name: _dtype_kind(array.dtype[name]) for name in array.dtype.names}
    kinds = {name: kind for name, kind in kinds.items() if not name.startswith("__")}
    sources = {name: kind for name, kind in kinds.items() if name not in TOKENIZED}
    if any(kind in ("str", "image", "audio") for kind in sources.values()):
        kinds = sources  # what a tokenizer makes of them says nothing more
    else:
        kinds = {name: kind for name, kind in kinds.items() if name not in TOKENIZED or name.endswith("input_ids")}
    return {"columns": _bounded(kinds)} if kinds else {}


def _feature_kind(feature: Any) -> str:
    if isinstance(feature, Mapping):
        return "mapping"
    if isinstance(feature, list | tuple):
        return f"list of {_feature_kind(feature[0])}" if feature else "list"
    name = type(feature).__name__
    if name in ("Sequence", "List", "LargeList") and hasattr(feature, "feature"):
        return f"list of {_feature_kind(feature.feature)}"
    return _dtype_kind(feature.dtype) if name == "Value" else {"ClassLabel": "int"}.get(name, name.lower())


def _value_kind(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"list of {_value_kind(value[0])}" if value else "list"
    if isinstance(value, bool | int | float | str):
        return type(value).__name__
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is None:
        return "image" if hasattr(value, "getbands") else type(value).__name__
    return f"list of {_dtype_kind(dtype)}" if shape is not None and len(shape) == 1 else _dtype_kind(dtype)


def _dtype_kind(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.").lower()
    if name.startswith(("datetime", "timestamp", "date")):
        return "date"
    return "str" if name in ("object", "utf8", "large_string") or name.startswith("<u") else kind_of(name) or name


def _bounded(names: Any) -> Any:
    """Return names as they are, in one order; of many a digest."""
    plain = {key: names[key] for key in sorted(names)} if isinstance(names, Mapping) else list(names)
    if len(plain) <= _MAX_NAMES:
        return plain
    return f"{len(plain)} names, {hashlib.sha256(repr(plain).encode()).hexdigest()[:8]}"


def label_schema(dataset: object, target_key: str | None = None) -> dict[str, Any]:
    """Return the names of the classes, where data have them, under ``labels``."""
    base = base_of(dataset)
    features = getattr(base, "features", None)
    keys = [target_key, *TARGET_KEYS] if isinstance(features, Mapping) else []
    found = [getattr(features[key], "names", None) for key in keys if key is not None and features is not None and key in features]
    names = next((item for item in [*found, getattr(base, "classes", None)] if item is not None), None)
    if isinstance(names, Sequence) and not isinstance(names, str) and names and all(isinstance(item, str) for item in names):
        return {"labels": _bounded(names)}
    return {}


def model_schema(module: nn.Module) -> dict[str, Any]:
    """Return the names that a pre-trained model's configuration gives its labels, under ``labels``; none where they are numbers."""
    for part in module.modules():
        with suppress(Exception):  # a user's own configuration may be anything
            names = getattr(getattr(part, "config", None), "id2label", None)
            if isinstance(names, Mapping) and names and not any(str(name).startswith("LABEL_") for name in names.values()):
                return {"labels": _bounded([str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))])}
    return {}


def split_sample(sample: Any, *, is_tensors: bool) -> tuple[Any, Any, str | None]:
    """Return the input and the target of a sample, and the key of the target where it has keys."""
    if isinstance(sample, tuple | list) and sample and not isinstance(sample[0], int | float | str):
        if len(sample) == 1:
            return sample[0], None, None
        return sample[0], sample[-1 if is_tensors else 1], None
    if isinstance(sample, tuple) and len(sample) == 2:
        return sample[0], sample[1], None
    if isinstance(sample, Mapping):
        target_key = next((key for key in TARGET_KEYS if sample.get(key) is not None), None)
        input_key = next((key for key in INPUT_KEYS if sample.get(key) is not None), None)
        if input_key is None:
            input_key = next((key for key in sample if key != target_key), None)
        return sample.get(input_key), sample.get(target_key), target_key
    return sample, None, None


def length_hparams(*holders: Mapping[str, Any]) -> frozenset[int]:
    """Return the whole numbers whose names say that they are the length of an axis: ``seq_len``, ``window``, ``horizon``."""
    found: set[int] = set()
    for holder in holders:
        for name, value in holder.items():
            if not isinstance(name, str) or canonical_name(name) in NAMES or _LENGTH_WORDS.isdisjoint(words_of(name)):
                continue
            sizes = value if isinstance(value, tuple | list) else [value]
            found |= {size for size in sizes if type(size) is int and size > 1}
    return frozenset(found)


def shape_and_dtype(value: Any, *, is_padded: bool, lengths: Collection[int] = ()) -> tuple[tuple[int, ...], str, tuple[int, ...]] | None:
    """Return the shape, dtype and fixed free sizes of one value; free axes are -1 in the shape.

    Args:
        value: Input or target of a sample.
        is_padded: Whether a sequence of whole numbers holds tokens, whose number differs from sample to sample.
        lengths: Sizes of free axes.
    """
    found = _full_shape(value)
    if found is None:
        return None
    sizes, name = found
    if name == "str" or (is_padded and len(sizes) == 1 and sizes[0] > 1 and "int" in name):
        return (-1,), name, ()
    free = tuple(size for size in sizes if size in lengths)
    return tuple(-1 if size in lengths else size for size in sizes), name, free


def _full_shape(value: Any) -> tuple[tuple[int, ...], str] | None:
    kinds = {bool: "bool", int: "int64", float: "float64"}
    if type(value) in kinds:
        return (), kinds[type(value)]
    if isinstance(value, str):
        return (-1,), "str"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None and hasattr(value, "getbands"):  # a PIL image
        return (value.height, value.width, len(value.getbands())), "uint8"
    if shape is None and isinstance(value, Sequence) and value:
        inner = _full_shape(value[0])
        if inner is None:
            return None
        shape, dtype = (len(value), *inner[0]), inner[1]
    if shape is None:
        return None
    return tuple(int(size) for size in shape), str(dtype).removeprefix("torch.")


def count_classes(base: Any, target_key: str | None) -> int | None:
    """Return the number of classes that a data set says, or that its labels have."""
    for name in ("num_classes", "n_classes", "num_labels"):
        number = getattr(base, name, None)
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    features = getattr(base, "features", None)
    if target_key is not None and isinstance(features, Mapping):
        number = getattr(features.get(target_key), "num_classes", None)
        return number if number is not None else _distinct(base[:MAX_LABELS][target_key])
    classes = getattr(base, "classes", None)
    if classes is not None and isinstance(classes, Collection) and not isinstance(classes, str):
        return len(classes)
    for labels in (getattr(base, "targets", None), getattr(base, "labels", None)):
        if labels is not None:
            return _distinct(labels)
    return _distinct(base.tensors[-1]) if isinstance(base, TensorDataset) else None


def _distinct(labels: Any) -> int | None:
    values = torch.as_tensor(labels[:MAX_LABELS]).reshape(-1)
    if values.numel() == 0 or values.is_floating_point():
        return None
    # The set is faster for few, and torch sets up nothing for it.
    unique = sorted(set(values.tolist())) if values.numel() <= _FEW_LABELS else torch.unique(values).tolist()
    # A count or a year is an integer, too, but no class: nearly every sample has its own.
    if len(unique) > 20 and len(unique) > values.numel() / 2:
        return None
    low, high = unique[0], unique[-1]
    # The highest label counts the classes even where a split happens to miss one; labels such as 0 and 255 are names.
    return high + 1 if low >= 0 and high + 1 <= 2 * len(unique) else len(unique)
