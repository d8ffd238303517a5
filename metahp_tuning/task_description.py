"""What a data set and a model are, read from the objects themselves.

Both host frameworks use these functions, so that the same training gives the same description under either. Nothing here raises
for an object it does not know: what cannot be read is absent. Nothing here changes a random number generator.
"""

from __future__ import annotations

import copy
import logging
import random
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from store.hyperparameters import NAMES
from store.names import canonical_name, is_secret_name

_log = logging.getLogger(__name__)

MAX_LABELS = 1_000_000
"""Labels looked at to count the classes; a second of work at most."""

_FEW_LABELS = 10_000

MAX_WRAPPERS = 8
"""Wrappers around a data set that are followed; a data set that contains itself must not hang us."""

MAX_PARTS = 2000
"""Objects among which random generators are looked for."""

MAX_ENTRIES = 32
"""Entries looked at of one list, such as a chain of augmentations."""

_INPUT_KEYS = (
    *("input_ids", "pixel_values", "input_values", "input_features", "inputs", "input", "x"),
    *("image", "images", "img", "features", "data", "text", "sentence"),
)
_TARGET_KEYS = ("labels", "label", "label_ids", "targets", "target", "y")
_LOADER_PLUMBING = frozenset({"num_workers", "pin_memory", "shuffle", "persistent_workers", "prefetch_factor", "drop_last", "download"})
_PATH_WORDS = frozenset({"dir", "directory", "path", "root", "cache", "folder", "file", "filename"})
_GENERIC_BUILDERS = frozenset({"generator", "csv", "json", "parquet", "text", "arrow", "pandas", "sql", "imagefolder", "webdataset"})


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give back every global random state on leaving: python, numpy, torch on the CPU and on each GPU in use."""
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy = sys.modules.get("numpy")  # whoever has not imported it draws no numbers from it
    numpy_state = None if numpy is None else numpy.random.get_state()
    is_cuda_used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda_states = torch.cuda.get_rng_state_all() if is_cuda_used else None
    try:
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


@contextmanager
def preserved_generators(owner: object) -> Iterator[None]:
    """Give the random generators that an object keeps back their state: its attributes, and those of its parts."""
    kept = [(value, state) for value in _parts(owner) if (state := _generator_state(value)) is not None]
    try:
        yield
    finally:
        for generator, state in kept:
            _restore_generator(generator, state)


def _parts(owner: object) -> list[object]:
    """An object, its attributes, and theirs, through lists and wrapped data sets; each once, the nearest first."""
    found: dict[int, object] = {id(owner): owner}
    waiting = deque([owner])
    while waiting and len(found) < MAX_PARTS:
        for value in _attributes(waiting.popleft()):
            if id(value) not in found:
                found[id(value)] = value
                waiting.append(value)
    return list(found.values())


_LEADS_BACK = frozenset({"trainer", "_trainer", "fabric", "_fabric"})
"""Attributes that hold whoever runs a module or data module: all of a training is reached through them, and none of it is theirs."""
_OPAQUE = (type, ModuleType, FunctionType, torch.Tensor)
_PLAIN = frozenset({bool, int, float, str, bytes, type(None), dict, list, tuple, set, type, ModuleType, FunctionType})
"""Types of most of what objects hold, none of them a generator."""


def _attributes(item: object) -> list[object]:
    if isinstance(item, list | tuple):
        return list(item[:MAX_ENTRIES])
    held = getattr(item, "__dict__", None)
    return [] if not held or isinstance(item, _OPAQUE) else [value for name, value in held.items() if name not in _LEADS_BACK]


def _generator_state(value: Any) -> Any:
    if type(value) in _PLAIN:
        return None
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if not type(value).__module__.startswith("numpy.random"):
        return None
    if hasattr(value, "bit_generator"):
        return copy.deepcopy(value.bit_generator.state)
    return value.get_state() if hasattr(value, "get_state") else None


def _restore_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def data_sets(dataset: object) -> list[Any]:
    """Return the data sets that a dictionary (a ``DatasetDict``, too) holds by name; anything else is one itself."""
    if not isinstance(dataset, Mapping) or not dataset or not all(isinstance(name, str) for name in dataset):
        return [dataset]
    return list(dataset.values())


def sample_count(dataset: object) -> int | None:
    """Return the number of samples, over all data sets of a dictionary; None where one has no length."""
    total = 0
    for part in data_sets(dataset):
        try:
            total += len(part)
        except Exception:  # a stream has no length, and a user's own __len__ may fail in any way
            return None
    return total


def describe_dataset(dataset: object) -> dict[str, Any]:
    """Describe a data set by its size and by one sample.

    One sample of a map-style data set is read, under preserved random states; a stream is never iterated.

    Args:
        dataset: A torch data set, a Hugging Face ``datasets.Dataset``, anything with ``__getitem__``, or a dictionary of such: all of
            them are counted, and the first one is described.

    Returns:
        Those of ``dataset_class``, ``n_train``, ``input_shape``, ``input_dtype``, ``target_shape``, ``target_dtype`` and
        ``n_classes`` that could be found out, named as in ``TaskDescription``.
    """
    if dataset is None:
        return {}
    n_samples, dataset = sample_count(dataset), data_sets(dataset)[0]
    base = _unwrap(dataset)
    found: dict[str, Any] = {"dataset_class": _dataset_class(base)}
    if n_samples is not None:
        found["n_train"] = n_samples
    is_stream = isinstance(dataset, IterableDataset) or not hasattr(type(dataset), "__getitem__")
    if is_stream or found.get("n_train") == 0:
        return found
    try:
        with preserved_rng(), preserved_generators(dataset):
            sample = dataset[0]  # type: ignore[index]
    except Exception as error:
        _log.debug("no sample of %s could be read: %s", found["dataset_class"], error)
        return found
    inputs, target, target_key = _split_sample(sample, is_tensors=isinstance(base, TensorDataset))
    _add_spec(found, "input", inputs, is_padded=not isinstance(base, TensorDataset))
    _add_spec(found, "target", target, is_padded=not isinstance(base, TensorDataset))
    if found.get("target_shape") in ((), (1,)) and found["target_dtype"].startswith(("int", "uint", "bool")):
        with suppress(Exception):  # labels may live in any container; not counting them is allowed
            found["n_classes"] = _count_classes(base, target_key)
    return {key: value for key, value in found.items() if value is not None}


def _unwrap(dataset: object) -> object:
    for _ in range(MAX_WRAPPERS):
        if isinstance(dataset, Subset):
            dataset = dataset.dataset
        elif isinstance(dataset, ConcatDataset) and dataset.datasets:
            dataset = dataset.datasets[0]
        else:
            break
    return dataset


def _dataset_class(dataset: object) -> str:
    """Every Hugging Face data set has one class, so the name it was loaded under is added where it says something."""
    name = type(dataset).__qualname__
    builder = getattr(getattr(dataset, "info", None), "builder_name", None)
    return f"{name}:{builder}" if isinstance(builder, str) and builder not in _GENERIC_BUILDERS else name


def _split_sample(sample: Any, *, is_tensors: bool) -> tuple[Any, Any, str | None]:
    if isinstance(sample, tuple | list) and sample and not isinstance(sample[0], int | float | str):
        if len(sample) == 1:
            return sample[0], None, None
        return sample[0], sample[-1 if is_tensors else 1], None
    if isinstance(sample, tuple) and len(sample) == 2:
        return sample[0], sample[1], None
    if isinstance(sample, Mapping):
        target_key = next((key for key in _TARGET_KEYS if sample.get(key) is not None), None)
        input_key = next((key for key in _INPUT_KEYS if sample.get(key) is not None), None)
        if input_key is None:
            input_key = next((key for key in sample if key != target_key), None)
        return sample.get(input_key), sample.get(target_key), target_key
    return sample, None, None


def _add_spec(found: dict[str, Any], part: str, value: Any, *, is_padded: bool) -> None:
    spec = _shape_and_dtype(value, is_padded=is_padded)
    if spec is not None:
        found[f"{part}_shape"], found[f"{part}_dtype"] = spec


def _shape_and_dtype(value: Any, *, is_padded: bool) -> tuple[tuple[int, ...], str] | None:
    """Return the shape and dtype of one value; a sequence of integers (token ids) has a free length, written -1."""
    kinds = {bool: "bool", int: "int64", float: "float64"}
    if type(value) in kinds:
        return (), kinds[type(value)]
    if isinstance(value, str):
        return (-1,), "str"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None and hasattr(value, "getbands"):  # a PIL image
        return (value.height, value.width, len(value.getbands())), "uint8"
    if shape is None and isinstance(value, Sequence) and value:
        inner = _shape_and_dtype(value[0], is_padded=is_padded)
        if inner is None:
            return None
        shape, dtype = (len(value), *inner[0]), inner[1]
    if shape is None:
        return None
    name = str(dtype).removeprefix("torch.")
    sizes = tuple(int(size) for size in shape)
    is_tokens = is_padded and len(sizes) == 1 and sizes[0] > 1 and "int" in name
    return ((-1,) if is_tokens else sizes), name


def _count_classes(base: Any, target_key: str | None) -> int | None:
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


_DATA_WORDS = frozenset({"data", "dataset", "datasets", "subset", "fold", "split", "domain", "corpus", "language", "lang"})


def names_data(name: str) -> bool:
    """Say whether a hyperparameter of a model is about its data by its name: ``dataset``, ``fold``, ``language``."""
    return not _DATA_WORDS.isdisjoint(name.lower().split("_"))


def data_identity_hparams(hparams: Mapping[str, Any], tunable: Collection[str] = ()) -> dict[str, Any]:
    """Return the hyperparameters of the data that cannot be tuned and therefore tell tasks apart.

    Only strings and booleans can: a number may be tuned (a batch size) or follow from the seed (a split).

    Args:
        hparams: Raw name -> value.
        tunable: Further names, raw or canonical, that may be tuned: those of a space.
    """
    tuned = set(NAMES) | {canonical_name(name) for name in tunable}
    return {
        name: value
        for name, value in hparams.items()
        if isinstance(value, str | bool)
        and canonical_name(name) not in tuned
        and name not in _LOADER_PLUMBING
        and not name.startswith("_")
        and not _names_path(name)
        and not is_secret_name(name)
    }


def _names_path(name: str) -> bool:
    return not _PATH_WORDS.isdisjoint(word.removesuffix("s") for word in name.lower().split("_"))


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
