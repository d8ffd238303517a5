"""The files of a meta-model: safetensors for numbers, JSON for everything else, never pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from store.errors import ModelFileError

MODEL_FORMAT = 4
"""Version of the files; a reader refuses others with the way out."""


def write_model_files(folder: str | os.PathLike[str], model_id: str, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write ``<id>.safetensors`` and ``<id>.json`` into a folder, the JSON last: a model exists once its JSON does.

    Returns:
        Path of the JSON file.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    weights, meta = folder / f"{model_id}.safetensors", folder / f"{model_id}.json"
    partial = folder / f".{model_id}.{os.getpid()}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    os.replace(partial, weights)
    partial_meta = folder / f".{model_id}.{os.getpid()}.json"
    partial_meta.write_text(json.dumps({"format": MODEL_FORMAT, **content}, indent=1), encoding="utf-8")
    os.replace(partial_meta, meta)
    return meta


def meta_file(path: str | os.PathLike[str]) -> Path:
    """Return the JSON file of a model: given itself, the safetensors file beside it, or a folder of models, for the newest one."""
    found = Path(path)
    return max(found.glob("*.json"), default=found / "model.json") if found.is_dir() else found.with_suffix(".json")


@contextmanager
def readable(meta: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a model is rebuilt from its files into one error.

    Raises:
        ModelFileError: If a file is missing, damaged or does not hold what it should.
    """
    from safetensors import SafetensorError

    try:
        yield
    except ModelFileError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ModelFileError(
            f"A meta-model must be a readable pair of .json and .safetensors, but {str(meta)!r} is not: {error}. Run `metahp refit`."
        ) from error


def read_model_files(meta: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the two files of a model.

    Args:
        meta: The JSON file.

    Raises:
        ModelFileError: If a file is missing, damaged or of another format.
    """
    from safetensors.torch import load_file

    with readable(meta):
        content = json.loads(meta.read_text(encoding="utf-8"))
        if content.get("format") != MODEL_FORMAT:
            raise ModelFileError(
                f"A meta-model must have format {MODEL_FORMAT}, but {str(meta)!r} has {content.get('format')!r}. Run `metahp refit`."
            )
        return content, load_file(meta.with_suffix(".safetensors"))
