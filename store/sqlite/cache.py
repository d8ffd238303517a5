"""Files beside a history that spare a process what an earlier one has worked out. Losing one costs time and nothing else.

The configurations of many runs are kept as columns, hyperparameter by hyperparameter: smaller, and read several times as fast.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.values import decode_value, encode_value

if TYPE_CHECKING:
    from store.history_reader import HistoryReader

logger = logging.getLogger(__name__)

MIN_CACHED_RUNS = 500
"""A smaller history is read as fast without a cache."""
WORTH_WRITING = 0.1
"""Share of the runs that must be new to a cache, or have changed, before it is written anew."""

DAMAGED = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What the content of a damaged cache may raise when it is taken apart."""

ABSENT = object()
"""Stands in a column for a configuration that does not have the hyperparameter."""


def origin_of(connection: sqlite3.Connection) -> str | None:
    """Return when the first tables of a database were made, which differs from that of another one at the same path. None if unknown."""
    try:
        row = connection.execute("SELECT min(applied_at) FROM _sqlite_migrations").fetchone()
    except sqlite3.Error as error:
        logger.debug("It is unknown when the history was made, so nothing is cached: %s", error)
        return None
    return None if row is None or row[0] is None else str(row[0])


def origin_of_history(history: HistoryReader) -> str | None:
    """Return ``origin_of`` for an open history."""
    with history._reading() as connection:
        return origin_of(connection)


def read_cache(path: Path, form: int, origin: str) -> dict[str, Any] | None:
    """Return what ``write_cache`` wrote.

    Args:
        path: The file.
        form: Version of what it holds.
        origin: As ``origin_of`` gives it.

    Returns:
        None where there is no file, it belongs to another database or another version, or it is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.debug("The cache %s cannot be read and is made anew: %s", path, error)
        return None
    if not isinstance(content, dict) or (content.get("format"), content.get("origin")) != (form, origin):
        return None
    return content


def write_cache(path: Path, form: int, origin: str, content: Mapping[str, Any]) -> None:
    """Write a cache in one step: another process sees the old one or the new one. Never raises for want of room or rights.

    Args:
        path: The file; readable by its owner alone.
        form: Version of what it holds.
        origin: As ``origin_of`` gives it.
        content: JSON-compatible.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps({"format": form, "origin": origin, **content}, separators=(",", ":"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError as error:  # a read-only place, a full disk: it works without, only slower
        logger.debug("The cache %s cannot be written: %s", path, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def to_columns(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return configurations as columns, JSON-compatible; one value where all share it."""
    same: dict[str, Any] = {}
    each: dict[str, list[Any] | str] = {}
    with_coded = []
    for name in sorted({key for config in configs for key in config}):
        column = [config.get(name, ABSENT) for config in configs]
        if _are_alike(column):
            same[name] = _coded(column[0])
        elif all(type(value) is float for value in column):
            each[name] = packed(column)
        elif any(_is_coded(value) for value in column):
            with_coded.append(name)
            each[name] = [{} if value is ABSENT else _coded(value) for value in column]
        else:
            each[name] = column
    return {"n": len(configs), "same": same, "each": each, "coded": with_coded}


def from_columns(content: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, list[Any]]]:
    """Return the number of configurations, the values that all share, and the other columns; ``ABSENT`` where one lacks it.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: If it is not what ``to_columns`` gave; see ``DAMAGED``.
    """
    each = {name: unpacked(column) if isinstance(column, str) else column for name, column in content["each"].items()}
    for name in content["coded"]:
        each[name] = [ABSENT if value == {} else _decoded(value) for value in each[name]]
    return content["n"], {name: _decoded(value) for name, value in content["same"].items()}, each


def _is_coded(value: object) -> bool:
    """Whether JSON alone would not give this value back."""
    return not (value is None or type(value) in (bool, int, float, str))


def _coded(value: Any) -> Any:
    """Return what stands for a value in a cache."""
    return {"$": encode_value(value)} if _is_coded(value) else value


def _decoded(value: Any) -> Any:
    """Return the value that ``_coded`` was given."""
    return decode_value(value["$"]) if isinstance(value, dict) else value


def packed(numbers: list[float]) -> str:
    """Return floats as a text that is read ten times as fast as their digits, and gives back each bit."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}d", *numbers)).decode("ascii")


def unpacked(text: str) -> list[float]:
    """Return the floats of which ``packed`` made this.

    Raises:
        ValueError: If it is damaged.
    """
    content = base64.b64decode(text, validate=True)
    if len(content) % 8:
        raise ValueError(f"floats take 8 bytes each, got {len(content)}")
    return list(struct.unpack(f"<{len(content) // 8}d", content))


def _are_alike(values: list[Any]) -> bool:
    """Whether a cache may hold one of these for all of them: equal, of one type, and a zero of one sign."""
    first = values[0]
    return all(value is first or (type(value) is type(first) and repr(value) == repr(first)) for value in values)
