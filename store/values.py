"""Hyperparameter values as text and back, with their types.

Plain values are plain JSON, so a history can be queried by hand (``value_json = '0.001'``). What JSON does not have is tagged:
``{"$type": "tuple", "value": [1, 2]}``. Things without a value (functions, modules, tensors) become a short,
stable text and come back as ``Opaque``.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from store.privacy import HIDDEN_PATH, has_secret_value, hidden_path, hide_places, redact, scrub_message, secret_positions
from store.privacy import REDACTED as REDACTED
from store.privacy import redact_text as redact_text

MAX_JSON_CHARS = 1_000_000
"""Longer values (a vocabulary, a whole data set passed as an argument) are stored as their type, length, hash and beginning."""

_MAX_REPR_CHARS = 500
_MAX_ARRAY_ITEMS = 1_000
_MAX_ITEMS = 20_000
_MAX_DEPTH = 40  # deeper than any configuration, well below Python's recursion limit
_MAX_FLOAT = 1e300  # whole numbers may be larger than any float
_PLAIN = frozenset({bool, int, float, str})
_MAX_PLAIN_INT_DIGITS = 4_000  # Python refuses to convert decimal texts of more than 4300 digits


@dataclasses.dataclass(frozen=True, slots=True)
class Opaque:
    """A value that cannot come back from a file: a function, a module, a tensor.

    Attributes:
        kind: ``function``, ``class``, ``module``, ``tensor``, ``array``, ``dtype``, ``hidden_path``, ``truncated`` or ``object``.
        text: Short text that is equal for equal things as far as possible, e.g. ``torch.nn.functional.relu``.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


def encode_value(value: Any, name: str = "") -> str:
    """Return a value as typed JSON text.

    Args:
        value: Anything; never raises.
        name: The name it is stored under; a value under the name of a credential becomes ``"[redacted]"``.

    Returns:
        JSON in ASCII; at most about ``MAX_JSON_CHARS`` characters.
    """
    text = json.dumps(_to_json(value, name, ()), separators=(",", ":"), allow_nan=False)
    return text if len(text) <= MAX_JSON_CHARS else json.dumps(_shortened(value, text))


def decode_value(text: str | None) -> Any:
    """Return the value ``encode_value`` wrote; None for None.

    Plain types, tuples, sets, bytes, relative paths and dates come back equal. Absolute paths come back as ``Opaque`` (last part
    and hash) unless ``METAHP_RECORD_PATHS=1`` was set when they were written, credentials as ``[redacted]``. NumPy scalars come
    back as Python numbers, enum members as their values, dataclasses as dictionaries, everything without a value as ``Opaque``.
    """
    if text is None:
        return None
    return _from_json(json.loads(text))


def storable_text(text: object) -> str:
    """Return a text that SQLite can hold: lone surrogates, which UTF-8 cannot express, are written out."""
    text = str(text)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {"$type": kind, "value": value}


def _to_json(value: Any, name: str, within: tuple[int, ...]) -> Any:
    """Return what ``json.dumps`` writes for a value; ``within`` are the ids of what holds it."""
    try:
        value = redact(value, name)
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if kind is str:
            return _text_to_json(value)
        if kind is int:
            return _int_to_json(value)
        if kind is float:
            return value if math.isfinite(value) else _tagged("float", repr(value))
        if within.count(id(value)) > 1:  # once again shows what it is; without end, two of itself in a list would take for ever
            return _tagged("object", f"{_class_name(value)} that holds itself")
        return _structure_to_json(value, name, within) if len(within) < _MAX_DEPTH else _tagged("object", _safe_repr(value))
    except Exception as error:  # a foreign object may fail in any way when it is looked at; the run must not
        return _tagged("object", f"{_class_name(value)} (unreadable: {type(error).__name__})")


def _shortened(value: Any, text: str) -> dict[str, Any]:
    """Return what is stored of a huge value: equal for equal ones, whatever their size."""
    length = f", length {len(value)}" if hasattr(value, "__len__") else ""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return _tagged("truncated", f"{type(value).__name__}{length}, sha256 {digest}: {text[:200]}")


def _text_to_json(value: str) -> Any:
    """Return a text as it is, unless it reveals where things lie on the user's machine."""
    hidden = hidden_path(value)
    if hidden is not None:
        return _tagged(HIDDEN_PATH, hidden)
    shown = hide_places(value)
    return value if shown == value else shown


def _int_to_json(value: int) -> Any:
    # bit_length bounds the digits without the conversion that Python would refuse
    return value if value.bit_length() * 0.30103 < _MAX_PLAIN_INT_DIGITS else _tagged("int", hex(value))


def _structure_to_json(value: Any, name: str, within: tuple[int, ...]) -> Any:
    """Return the JSON form of everything that is not a plain scalar."""
    if isinstance(value, Opaque):
        return _tagged(value.kind, value.text)
    if isinstance(value, Enum):
        inner = {"class": _class_name(value), "name": value.name}
        return _tagged("enum", {**inner, "value": _to_json(value.value, name, (*within, id(value)))})
    for types_, encode in _SCALARS:
        if isinstance(value, types_):
            return encode(value)
    if isinstance(value, list | tuple | Set | Mapping):
        return _collection_to_json(value, name, within)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        inner_json = {key: _to_json(item, key, (*within, id(value))) for key, item in shown.items()}
        return _tagged("dataclass", {"class": _class_name(value), "fields": inner_json})
    if type(value).__module__.partition(".")[0] in {"torch", "numpy", "jax", "tensorflow"}:
        return _array_to_json(value)
    if isinstance(value, Sequence):
        return [_to_json(read_item(value, index), name, (*within, id(value))) for index in range(len(value))]
    return _named_thing(value)


def _collection_to_json(value: Any, name: str, within: tuple[int, ...]) -> Any:
    if len(value) > _MAX_ITEMS:
        # looking at every item of a data set would hold up the start of the training
        ends = [_to_json(item, name, (*within, id(value))) for item in islice(value, _MAX_ITEMS // 2)]
        if isinstance(value, list | tuple):
            ends += [_to_json(item, name, (*within, id(value))) for item in value[-_MAX_ITEMS // 2 :]]
        return _shortened(value, json.dumps(ends))
    if isinstance(value, Mapping):
        return _mapping_to_json(value, within)
    secrets = secret_positions(value) if isinstance(value, list | tuple) else ()
    encoded = [REDACTED if index in secrets else _to_json(item, name, (*within, id(value))) for index, item in enumerate(value)]
    if isinstance(value, Set):
        return _tagged("frozenset" if isinstance(value, frozenset) else "set", sorted(encoded, key=json.dumps))
    return _tagged("tuple", encoded) if isinstance(value, tuple) else encoded


def _mapping_to_json(value: Mapping[Any, Any], within: tuple[int, ...]) -> Any:
    inside = (*within, id(value))
    if type(value) is not dict:
        value = {key: read_item(value, key) for key in value}
    if has_secret_value(value):
        value = {**value, "value": redact(value["value"], "secret")}
    if all(type(key) is str and _text_to_json(redact(key)) == key for key in value) and "$type" not in value:
        return {key: _to_json(item, key, inside) for key, item in value.items()}
    pairs = [[_to_json(redact(key), "", inside), _to_json(item, str(key), inside)] for key, item in value.items()]
    return _tagged("dict", pairs)


def read_item(value: Any, key: Any) -> Any:
    """Return an item of a collection; where it refuses, an ``Opaque`` that names the error."""
    try:
        return value[key]
    except Exception as error:  # foreign code
        return Opaque("object", f"unreadable: {type(error).__name__}")


def _array_to_json(value: Any) -> Any:
    """Return scalars of array libraries as numbers, small arrays with their values, the rest as type and shape."""
    shape = getattr(value, "shape", None)
    if shape is None or not hasattr(value, "dtype") or isinstance(value, type):
        if type(value).__name__ in {"dtype", "DType"} or type(value).__name__.endswith("DType"):
            return _tagged("dtype", str(value))
        if type(value).__module__ == "torch" and type(value).__name__ in {"device", "Size"}:
            return str(value) if type(value).__name__ == "device" else list(value)
        return _named_thing(value)
    dtype = str(value.dtype)
    if type(value).__module__.startswith("numpy"):
        if not shape:
            return _to_json(value.item() if hasattr(value, "item") else value, "", (0,) * (_MAX_DEPTH - 1))
        if value.size <= _MAX_ARRAY_ITEMS and value.dtype.kind in "biuf":
            return _tagged("array", f"{dtype}{list(shape)} {json.dumps(value.tolist())}")
        digest = hashlib.sha256(value.tobytes()).hexdigest()[:16] if value.dtype.kind != "O" else "of objects"
        return _tagged("array", f"{dtype}{list(shape)} sha256 {digest}")
    # no values of tensors: reading them could wait for an accelerator
    return _tagged("tensor", f"{dtype}{list(shape)}")


def _named_thing(value: Any) -> Any:
    """Return functions, classes and objects as a text that names them."""
    if isinstance(value, type):
        return _tagged("class", f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, types.ModuleType):
        return _tagged("module", value.__name__)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return _tagged("function", f"{getattr(value, '__module__', None)}.{value.__qualname__}")
    if isinstance(value, partial):
        return _tagged("function", f"partial({_named_thing(value.func)['value']}, {_safe_repr((value.args, value.keywords))})")
    if hasattr(value, "named_parameters"):
        return _tagged("module", _class_name(value))
    if isinstance(value, types.SimpleNamespace) or type(value).__name__ == "Namespace":
        return _mapping_to_json(vars(value), (0,) * (_MAX_DEPTH - 5))
    return _tagged("object", _safe_repr(value))


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def _safe_repr(value: Any) -> str:
    """Return a bounded text without memory addresses, so that equal objects of two runs look equal."""
    try:
        text = _ADDRESS.sub("", repr(value))
    except Exception:  # foreign code; the type is known
        text = _class_name(value)
    return scrub_message(text if len(text) <= _MAX_REPR_CHARS else text[:_MAX_REPR_CHARS] + "...")


def _path_to_json(value: PurePath) -> Any:
    hidden = hidden_path(value)
    if hidden is not None:
        return _tagged(HIDDEN_PATH, redact_text(hidden))
    return _tagged("windows_path" if isinstance(value, PureWindowsPath) else "path", redact_text(str(value)))


_SCALARS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, lambda value: _text_to_json(str.__str__(value))),
    (bool, bool),
    (int, lambda value: _int_to_json(int(value))),
    (float, lambda value: float(value) if math.isfinite(value) else _tagged("float", repr(float(value)))),
    (bytes | bytearray, lambda value: _tagged("bytes", base64.b64encode(bytes(value)).decode())),
    (PurePath, _path_to_json),
    (datetime, lambda value: _tagged("datetime", value.isoformat())),
    (date, lambda value: _tagged("date", value.isoformat())),
    (time, lambda value: _tagged("time", value.isoformat())),
    (timedelta, lambda value: _tagged("timedelta", [value.days, value.seconds, value.microseconds])),
    (complex, lambda value: _tagged("complex", [repr(value.real), repr(value.imag)])),
    (Decimal, lambda value: _tagged("decimal", str(value))),
    (Fraction, lambda value: _tagged("fraction", str(value))),
    (range, lambda value: _tagged("range", [value.start, value.stop, value.step])),
)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$type")
    if kind is None:
        return {key: _from_json(item) for key, item in value.items()}
    inner = value.get("value")
    decode = _DECODERS.get(kind)
    if decode is None:
        return Opaque(str(kind), str(inner))
    return decode(inner)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "int": lambda inner: int(inner, 16),
    "tuple": lambda inner: tuple(_from_json(item) for item in inner),
    "set": lambda inner: {_from_json(item) for item in inner},
    "frozenset": lambda inner: frozenset(_from_json(item) for item in inner),
    "dict": lambda inner: {_from_json(key): _from_json(item) for key, item in inner},
    "dataclass": lambda inner: {key: _from_json(item) for key, item in inner["fields"].items()},
    "enum": lambda inner: _from_json(inner["value"]),
    "bytes": lambda inner: base64.b64decode(inner),
    "path": Path,
    "windows_path": PureWindowsPath,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda inner: timedelta(*inner),
    "complex": lambda inner: complex(float(inner[0]), float(inner[1])),
    "decimal": Decimal,
    "fraction": Fraction,
    "range": lambda inner: range(*inner),
}


def same_value(a: Any, b: Any) -> bool:
    """Compare two hyperparameter values; never raises.

    Numbers are equal within a relative tolerance of 1e-9, since they pass through text. Lists, tuples and mappings are compared item by
    item, arrays and tensors whole. What cannot be compared (an object whose ``==`` raises, or gives no truth) is equal only to itself.
    """
    try:
        return _is_same(a, b)
    except Exception:  # a user's object may fail in any way when it is compared
        return a is b


def _is_same(a: Any, b: Any) -> bool:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b)):
        return math.isclose(a, b, rel_tol=1e-9) if all(abs(value) < _MAX_FLOAT for value in (a, b)) else bool(a == b)
    if a is b:
        return True
    if type(a) is type(b) and isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_value, a, b))
    if type(a) is type(b) and isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same_value(read_item(a, key), read_item(b, key)) for key in a)
    if isinstance(a, partial) and isinstance(b, partial):
        return _is_same((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    if getattr(a, "shape", None) != getattr(b, "shape", None):
        return False
    equal = a == b
    for _ in range(2):  # of a table, the columns and then the table
        equal = equal.all() if hasattr(equal, "all") else equal
    return bool(equal)


def plain_value(value: Any) -> Any:
    """Return a value as a run's row would give it back: what is no plain number, text or truth comes without its behaviour."""
    return value if value is None or type(value) in _PLAIN else decode_value(encode_value(value))
