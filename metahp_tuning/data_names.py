"""The names that data give themselves: builders of ``datasets``, folders, environments, streams, and hyperparameters.

What names data is found by the words of a hyperparameter's name and by its value, whatever it is called. Outputs, secrets and what can
be tuned never count. A path counts by its last telling part, so that it is the same on another machine.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from types import FunctionType, GeneratorType, MethodType, SimpleNamespace
from typing import Any

from torch.utils.data import IterableDataset

from metahp_tuning.data_parts import base_of, data_sets, is_table, words_of
from metahp_tuning.random_states import parts
from store.hyperparameters import NAMES
from store.names import canonical_name, is_secret_name
from store.privacy import redact_text

_MAX_ITEMS = 16
"""Items of a list that are kept as they are; of a longer one a digest."""
_MAX_LISTED = 1_000
_MAX_TEXT = 200
_MAX_DEPTH = 3
_MAX_OBJECTS = 300
"""Objects among which environments are looked for."""

_NAMING_WORDS = frozenset(
    str.split(
        "data dataset datasets subset subsets split domain domains corpus corpora language languages lang langs benchmark env envs "
        "environment environments game games gym scenario scene level target targets label labels column columns col cols feature "
        "features variable variables csv tsv json jsonl parquet hdf5 symbol symbols ticker tickers stock asset station stations site "
        "sensor series region country city store product subject patient session category species question task tasks source sources "
        "dialect genre market shard shards database recording channel channels topic topics instrument cohort organism tissue protein"
    )
)
"""Words of names under which a hyperparameter names data, an environment or a target."""
_PATH_WORDS = frozenset(str.split("file files filename filenames filepath url urls uri root dir directory folder path paths glob"))
_TUNABLE_WORDS = frozenset(
    str.split(
        "optimizer optim activation act scheduler schedule loss criterion device devices accelerator strategy precision dtype transform "
        "transforms augment augmentation augmentations aug sampler sampling normalization normalize norm pooling pool init initializer "
        "initialization backend interpolation collate collator padding attention encoding mode format type engine compile backbone "
        "encoder decoder head arch architecture model tokenizer tokenization pretrained weights metric metrics monitor logger extractor "
        "transformer module modules amp layer layers block template"
    )
)
"""Words of names that can be tuned, or say how a program runs: they outweigh the others."""
_OUTPUT_WORDS = frozenset(
    str.split(
        "output outputs out log logs logging checkpoint checkpoints ckpt ckpts save saved saves cache cached result results run runs exp "
        "experiment experiments wandb tensorboard mlflow tracking tmp temp resume work workdir artifact artifacts prediction predictions "
        "plot plots entity project tag tags note notes author user host hub push download dist master endpoint"
    )
)
_GENERIC_FOLDERS = frozenset(
    str.split(
        "data dataset datasets input inputs train training val valid validation test raw processed interim external files file root tmp "
        "content temp cache caches home users mnt media workspace scratch storage var usr opt shared kaggle working drive mydrive images "
        "image img texts text csv src code repo default main output outputs results . .."
    )
)
"""Last parts of paths that say nothing of what lies there."""
_RANDOM_PART = re.compile(r"^(tmp[\w-]{4,}|pytest-.*|[0-9a-f-]{12,})$", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(19|20)\d\d([-_./]?)(0[1-9]|1[0-2])(\2(0[1-9]|[12]\d|3[01]))([T_ -]?\d\d[:-]?\d\d([:-]?\d\d)?)?(?!\d)")
_DATA_SUFFIXES = frozenset(
    str.split(
        ".csv .tsv .json .jsonl .parquet .feather .arrow .h5 .hdf5 .npy .npz .pkl .pickle .txt .mat .nc .zarr .lmdb .tfrecord .zip .tar "
        ".tgz .gz .sqlite .db .xlsx .wav .mp3 .flac .nii .bin .idx .arff .libsvm .svmlight .root .fasta .smi .sdf .vcf .ndjson"
    )
)
_ENVIRONMENT_ID = re.compile(r"^[\w.:/-]*[A-Za-z][\w.-]*-v\d+$")
_HASHED_CONFIG = re.compile(r"^default(-[0-9a-f]+)?$|-[0-9a-f]{16}$")
GENERIC_BUILDERS = frozenset(
    str.split("generator csv json parquet text arrow pandas sql imagefolder audiofolder videofolder webdataset dataset")
)
_NUMBERED = frozenset(str.split("level subject patient session scenario map task domain station series dataset item openml env game user"))
_FOLD_WORDS = frozenset({"fold", "folds"})
_PART_WORDS = frozenset({"split", "splits", "shard", "part", "partition"})
_POSITION_WORDS = frozenset({"idx", "index", "id", "no", "number", "i", "k", "nr"})
_ENVIRONMENT_PLUMBING = frozenset({"render_mode", "vectorization_mode", "vector_kwargs", "wrappers"})
_NO_CODE = (lambda: None).__code__
_COUNT_WORDS = frozenset({"n", "num", "number", "total", "count", "size", "max", "min", "seed"})
_SIZE_WORDS = ("size", "sizes", "len", "length", "buffer", "workers", "steps", "batch", "batches", "epoch", "epochs", "rank", "rng")


def dataset_names(dataset: object) -> dict[str, Any]:
    """Return the names that a data set gives itself; those of a dictionary are those of its first one."""
    base: Any = base_of(data_sets(dataset)[0])
    found: dict[str, Any] = {}
    info = getattr(base, "info", None)
    if info is not None and (is_table(base) or hasattr(info, "builder_name")):
        names = (getattr(info, "dataset_name", None), getattr(info, "builder_name", None))
        builder = next((name for name in names if isinstance(name, str) and name not in GENERIC_BUILDERS), None)
        config = getattr(info, "config_name", None)
        if builder is not None:
            found["builder"] = builder
        if isinstance(config, str) and not _HASHED_CONFIG.search(config) and builder is not None:
            found["config"] = config
        split = getattr(base, "split", None)
        if split is not None and builder is not None:
            found["split"] = re.split(r"[\[+]", str(split))[0]
    if is_table(base):
        return found
    held = getattr(base, "__dict__", None) or {}
    if isinstance(base, GeneratorType):
        return found | _function_names(base)
    public = {name.lstrip("_"): value for name, value in held.items() if not name.startswith("__")}
    if isinstance(base, IterableDataset) or not hasattr(type(base), "__getitem__"):
        return found | _stream_names(public) | _example_source(base)
    texts = {name: value for name, value in public.items() if isinstance(value, str | PurePath | Enum | int)}
    return hyperparameter_names(texts, are_of_data=True) | found


def _example_source(stream: Any) -> dict[str, Any]:
    """Return what makes the examples of a stream of ``datasets``: the function, and the files or texts it is given."""
    for part in parts(stream)[:_MAX_OBJECTS] if type(stream).__module__.startswith("datasets.") else ():
        for name in ("generate_examples_fn", "generate_tables_fn"):
            function = getattr(part, "__dict__", {}).get(name)
            if callable(function):
                config = getattr(getattr(function, "__self__", None), "config", None)  # of the builder whose method it is
                files = getattr(config, "data_files", None)
                named = [item for names in files.values() for item in names] if isinstance(files, Mapping) else None
                maker = getattr(config, "generator", None) or function
                return _function_names(maker) | _enclosed({**getattr(part, "kwargs", {}), "files": named})
    return {}


def _stream_names(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return whatever tells a stream apart without reading it: texts, plain numbers, names and enclosed values of functions."""
    functions = {name: value for name, value in held.items() if _is_function(value) and _TUNABLE_WORDS.isdisjoint(words_of(name))}
    found = {f"{name}.{key}": item for name, value in functions.items() for key, item in _function_names(value).items()}
    return found | _enclosed({name: value for name, value in held.items() if _is_admitted(name, ())})


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType | MethodType | GeneratorType | partial)


def _function_names(function: Any) -> dict[str, Any]:
    """Return the name of a function or generator, and the plain values that it encloses, was given in advance or holds."""
    held: dict[str, Any] = {}
    if isinstance(function, GeneratorType):
        held |= function.gi_frame.f_locals if function.gi_frame is not None else {}
    while isinstance(function, partial):
        held |= {f"argument_{i}": value for i, value in enumerate(function.args)} | function.keywords
        function = function.func
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        with suppress(ValueError):  # an empty cell
            held[name] = cell.cell_contents
    return {"function": getattr(function, "__qualname__", type(function).__qualname__), **_enclosed(held)}


def _is_size(name: str) -> bool:
    return any(word.endswith(_SIZE_WORDS) or word in _COUNT_WORDS for word in words_of(name))


def _enclosed(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return texts, and the numbers that are no sizes."""
    found: dict[str, Any] = {}
    for name, value in held.items():
        if type(value) in (int, float):
            if not _is_size(name):
                found[name] = value
        elif (text := _telling(value)) is not None:
            found[name] = text
    return found


def hyperparameter_names(hparams: Mapping[str, Any], tunable: Collection[str] = (), *, are_of_data: bool = False) -> dict[str, Any]:
    """Return the hyperparameters that name data, an environment, a target or a file.

    Args:
        hparams: Raw name -> value; mappings inside are walked through.
        tunable: Names, raw or canonical, that may be tuned: those of a space.
        are_of_data: Whether they are those of a data module, where any text counts that cannot be tuned.
    """
    tuned = {canonical_name(name) for name in tunable}
    found: dict[str, Any] = {}
    for name, value in _flat(hparams):
        if _fold_value(name, value) is not None or not _is_admitted(name, tuned):
            continue
        if type(value) is int:
            if _is_numbered_name(name):
                found[name] = value
            continue
        names_data = _names_data(name) or are_of_data or _is_data_value(value)
        if names_data and (text := _telling(value, is_path=not _PATH_WORDS.isdisjoint(words_of(name)))) is not None:
            found[name] = text
    return found


def fold_names(hparams: Mapping[str, Any], tunable: Collection[str] = ()) -> dict[str, Any]:
    """Return the hyperparameters that name a fold or part of the same data, as in ``hyperparameter_names``."""
    tuned = {canonical_name(name) for name in tunable}
    found = {name: _fold_value(name, value) for name, value in _flat(hparams) if canonical_name(name) not in tuned}
    return {name: value for name, value in found.items() if value is not None}


def _fold_value(name: str, value: Any) -> Any:
    words = set(words_of(name.rpartition(".")[2]))
    is_part = bool(words & _PART_WORDS) and (bool(words & _POSITION_WORDS) or words <= _PART_WORDS)
    if isinstance(value, bool) or not (words & _FOLD_WORDS or is_part) or words & _COUNT_WORDS:
        return None
    if isinstance(value, int):
        return value
    # A split called "train" names data; one called "3" a part of them.
    return value[:_MAX_TEXT] if isinstance(value, str) and (words & _FOLD_WORDS or value.isdigit()) else None


def _flat(values: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, value in _items(values):
        if not isinstance(name, str) or name.startswith("_"):
            continue
        inner = (
            value if isinstance(value, Mapping | SimpleNamespace) or is_dataclass(value) or type(value).__name__ == "Namespace" else None
        )
        if inner is not None and not isinstance(value, type) and depth < _MAX_DEPTH:
            yield from _flat(inner, f"{prefix}{name}.", depth + 1)
        elif inner is None:
            yield f"{prefix}{name}", value


def _items(values: Any) -> list[tuple[Any, Any]]:
    with suppress(Exception):  # an interpolation of OmegaConf may fail when it is read
        if is_dataclass(values):
            return [(item.name, getattr(values, item.name)) for item in fields(values)]
        return list((values if isinstance(values, Mapping) else vars(values)).items())
    return []


def _is_admitted(name: str, tuned: Collection[str]) -> bool:
    group, _, leaf = name.rpartition(".")
    canonical, words, outer = canonical_name(leaf), set(words_of(leaf)), set(words_of(group))
    return (
        canonical not in NAMES
        and not {canonical, name, leaf} & set(tuned)
        and words.isdisjoint(_TUNABLE_WORDS)
        and (words | outer).isdisjoint(_OUTPUT_WORDS)
        and (outer.isdisjoint(_TUNABLE_WORDS) or not words.isdisjoint(_NAMING_WORDS))  # optimizer.name, but model.env
        and not is_secret_name(name)
    )


def _names_data(name: str) -> bool:
    return not (_NAMING_WORDS | _PATH_WORDS).isdisjoint(words_of(name))


def _is_numbered_name(name: str) -> bool:
    """A number is a name where it is an id: ``level``, ``subject_id``, ``openml_task_id``."""
    words = words_of(name.rpartition(".")[2])
    return words[-1:] == ["level"] or words == ["subject"] or (words[-1:] == ["id"] and not _NUMBERED.isdisjoint(words))


def _is_data_value(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_data_value(item) for item in value[:_MAX_ITEMS])
    if not isinstance(value, str | PurePath) or isinstance(value, Enum) or not 1 < len(str(value)) <= 1000:
        return False
    text = str(value)
    if _ENVIRONMENT_ID.match(text) or PurePath(text).suffix.lower() in _DATA_SUFFIXES:
        return True
    with suppress(OSError, ValueError):
        return ("/" in text or os.sep in text) and Path(text).expanduser().exists()
    return False


def _telling(value: Any, *, is_path: bool = False) -> Any:
    """Return a value as it enters identity: a text, a list of texts, or None where it says nothing."""
    if isinstance(value, Enum):
        value = value.value if isinstance(value.value, str) else value.name
    if isinstance(value, list | tuple | set | frozenset) and value and all(isinstance(item, str | PurePath) for item in value):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        texts = [text for item in items[:_MAX_LISTED] if (text := _telling(item, is_path=is_path)) is not None]
        texts = list(dict.fromkeys(texts))  # a file a day is one name
        return [*texts[:_MAX_ITEMS], "and others"] if len(texts) > _MAX_ITEMS else texts or None
    if not isinstance(value, str | PurePath) or not 0 < len(str(value)) <= _MAX_TEXT:  # a longer text is content
        return None
    text = _DATE.sub("", redact_text(str(value)))  # data that grow daily keep their name
    if is_path or isinstance(value, PurePath) or _is_path(text):
        return _telling_part(text)
    return None if text.lower() in ("", "none", "null", "auto", "default") else text


def _is_path(text: str) -> bool:
    """Say whether a text is a path: ``org/name`` of a hub and ``ALE/Pong-v5`` are none."""
    if "\n" in text or "://" in text or _ENVIRONMENT_ID.match(text):
        return False
    return text.startswith(("/", "~", "./", "../", ".\\")) or "\\" in text or text.count("/") > 1 or text.endswith("/")


def _telling_part(path: str) -> str | None:
    """Return the last part of a path that says something; folders with a made-up name, and whose home it is, say nothing."""
    text = os.path.expanduser(path).replace("\\", "/").rstrip("/")
    home, temporary = Path.home().as_posix(), Path(tempfile.gettempdir()).as_posix()
    for _ in range(3):
        if text in ("", "/", home, temporary) or _RANDOM_PART.match(os.path.basename(text)):
            return None
        name = os.path.basename(text)
        stem, suffix = os.path.splitext(name)
        if name.lower() not in _GENERIC_FOLDERS and not (suffix.lower() in _DATA_SUFFIXES and stem.lower() in _GENERIC_FOLDERS):
            return None if os.path.dirname(text) in ("/home", "/Users") else name
        text = os.path.dirname(text)
    return None


def environment_names(*owners: object) -> dict[str, Any]:
    """Return the ids of the environments that objects hold, with what these were made with, under ``environment``."""
    found: set[str] = set()
    for owner in owners:
        for part in [] if owner is None else parts(owner)[:_MAX_OBJECTS]:
            with suppress(Exception):  # a user's environment may be anything
                found |= _environments(part)
    return {"environment": sorted(found)} if found else {}


def _environments(part: Any) -> set[str]:
    kind = type(part)
    if isinstance(getattr(part, "__dict__", {}).get("id"), str) and hasattr(part, "entry_point"):
        return {_environment(part)}
    if not (callable(getattr(kind, "reset", None)) and callable(getattr(kind, "step", None)) and hasattr(part, "action_space")):
        return set()
    inner = getattr(part, "envs", None)
    environment = inner[0] if isinstance(inner, list | tuple) and inner else part
    spec = getattr(environment, "spec", None)
    if isinstance(getattr(spec, "id", None), str):
        return {_environment(spec)}
    makers = list(getattr(part, "env_fns", None) or ())[:1]
    named = [value for maker in makers for value in (*_function_names(maker).values(), *getattr(maker, "__code__", _NO_CODE).co_consts)]
    ids = {value for value in named if isinstance(value, str) and _ENVIRONMENT_ID.match(value)}
    return ids or {type(getattr(environment, "unwrapped", environment)).__qualname__}


def _environment(spec: Any) -> str:
    settings = getattr(spec, "kwargs", None) or {}
    named = {name: value for name, value in settings.items() if name not in _ENVIRONMENT_PLUMBING and not _is_size(name)}
    plain = {name: value for name, value in named.items() if isinstance(value, str | bool | int | float)}
    return str(spec.id) + "".join(f" {name}={plain[name]}" for name in sorted(plain))
