"""What never reaches the disk: credentials, and, unless asked for, where things lie on the user's machine and what it is called.

``METAHP_RECORD_PATHS=1`` records file paths, the script's path and the host's name as they are. Credentials are left out always.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

from store.names import is_secret_name
from store.switches import RECORD_PATHS

REDACTED = "[redacted]"
"""What is stored in place of a credential."""

HIDDEN_PATH = "hidden_path"
"""Kind of the ``Opaque`` that stands for a file path: its last part, and a hash that is equal for equal paths."""

_NO_CREDENTIAL = frozenset({"none", "null", "true", "false", "nan"})


def redact(value: Any, name: str = "") -> Any:
    """Return the value without credentials: under a secret name, or inside a text.

    Args:
        value: Any value; only strings are looked into, collections by whoever walks through them.
        name: The name it is known under.
    """
    if value is None or isinstance(value, bool):
        return value  # None and switches such as use_auth_token=True give nothing away
    if name and is_secret_name(name):
        return REDACTED
    if isinstance(value, str) and not isinstance(value, Enum):
        return redact_text(value)
    return value


# These are compiled when first used, and kept by ``re``: the start of a training mostly needs none of them.
# In a URL everything up to the @ is a credential. A password may hold a slash, but what follows a port is a path.
_URL_CREDENTIALS = r"(?<=://)(?:[^/?#\s\"'<>]*@|[^/?#\s\"'<>@:]*:(?!\d+[/?#])[^\s\"'<>@]*@)"
_URL_PARAMETER = r"(?<=[?&#;])([^=&\s#;]+)=([^&\s#;\"'<>]+)"
_SECRET_PARAMETERS = frozenset({"sig", "signature", "key", "auth", "code", "pwd", "pass", "x-amz-signature", "x-amz-credential", "sas"})
_ASSIGNMENT = r"([A-Za-z_][\w.\-]{0,80})(\s{0,2}=\s{0,2}|[\"']\s{0,4}:\s{0,4})([\"']?)([^\s\"'&,;}\])]+)"
_HEADER = r"(?i)\b(authorization\s*:\s*|bearer\s+|basic\s+(?=[\w+/=]{12,}))((?:bearer|basic|token)\s+)?([\w.~+/=\-]{6,})"
_KNOWN_SHAPES = (
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-(?=[\w-]*\d)[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"
)


def redact_text(text: str) -> str:
    """Return a text without credentials: ``https://user:password@host``, ``?token=...``, ``password=...``, ``Bearer ...``."""
    if "://" in text:
        text = re.sub(_URL_CREDENTIALS, f"{REDACTED}@", text)
        text = re.sub(_URL_PARAMETER, lambda found: f"{found[1]}={REDACTED}" if _is_secret_parameter(found[1]) else found[0], text)
    if "=" in text or ":" in text:
        text = re.sub(_ASSIGNMENT, _redact_assignment, text)
    if len(text) > 15:
        text = re.sub(_HEADER, lambda found: f"{found[1]}{found[2] or ''}{REDACTED}", text)
        text = re.sub(_KNOWN_SHAPES, REDACTED, text)
    return text


def secret_positions(items: Sequence[Any]) -> set[int]:
    """Return which items of a list are credentials by what stands before them: ``["--token", "x"]``, ``("password", "x")``."""
    found = set()
    for index, (before, item) in enumerate(itertools.pairwise(items), 1):
        if type(before) is not str or item is None or isinstance(item, bool):
            continue
        is_option = before.startswith("-") and "=" not in before and not (isinstance(item, str) and item.startswith("--"))
        if (is_option or len(items) == 2) and is_secret_name(before.lstrip("-")):
            found.add(index)
    return found


def has_secret_value(mapping: Mapping[Any, Any]) -> bool:
    """Return whether a mapping spells a credential as ``{"name": "api_key", "value": ...}``."""
    named = mapping.get("name", mapping.get("key"))
    return "value" in mapping and isinstance(named, str) and is_secret_name(named)


def _is_secret_parameter(name: str) -> bool:
    plain = unquote(name)
    return plain.lower() in _SECRET_PARAMETERS or is_secret_name(plain)


def _redact_assignment(found: re.Match[str]) -> str:
    name, between, quote, value = found.groups()
    if value.lower() in _NO_CREDENTIAL or value.startswith(REDACTED[:-1]) or not is_secret_name(name):
        return found[0]
    return f"{name}{between}{quote}{REDACTED}"


# A text that is a path from the root on, with two parts at least: "/gpu:0" and "/INST" are none.
_WHOLE_PATH = r"(?:file://)?(?:~[\w.-]*|[A-Za-z]:)?[/\\]{1,2}[\w.@+$-][^/\\\n\x00]*[/\\][^\n\x00]*|~[\w.-]*[/\\][^\n\x00]*"
_TAIL = r"[^\s'\"`,;:)\]}>|\x00]*"
_HOMES = r"(?:/home/|/Users/|/root/|/scratch/|/data/home/|[A-Za-z]:\\+Users\\+)"
_IN_TEXT = rf"(?<![\w:/\\.~-]){_HOMES}{_TAIL}"
_QUOTED = r"(?<=(['\"]))(?:~[\w.-]*|[A-Za-z]:|file://)?[/\\][^'\"\n]*(?=\1)"
_ANY_IN_TEXT = rf"(?<![\w:/\\.~<-])(?:~[\w.-]*|[A-Za-z]:|file://)?[/\\][\w.@+$-]+[/\\]{_TAIL}"


def hidden_path(value: str | PurePath) -> str | None:
    """Return what is stored of an absolute path: its last part and a hash. None where it may be stored as it is.

    Relative paths reveal nothing of the user or the machine and stay.
    """
    text = str(value)
    if isinstance(value, PurePath):
        is_path = value.is_absolute() or text.startswith("~") or bool(value.drive)
    else:
        is_path = text[:1] in "/\\~fABCDEFGHIJKLMNOPQRSTUVWXYZabcdeghijklmnopqrstuvwxyz" and bool(re.fullmatch(_WHOLE_PATH, text))
    if not is_path or RECORD_PATHS.is_on:
        return None
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f".../{_last_part(text)} (sha256 {digest})"


def hide_places(text: str) -> str:
    """Return a text without the paths of a home directory and the host's name in it."""
    if RECORD_PATHS.is_on:
        return text
    if "/" in text or "\\" in text:
        text = _own_home().sub(_shown, text) if _own_home() is not None else text  # type: ignore[union-attr]
        text = re.sub(_IN_TEXT, _shown, text)
    return _hide_host(text)


def scrub_message(text: str) -> str:
    """Return an error's text without credentials, absolute paths and the host's name."""
    text = redact_text(text)
    if RECORD_PATHS.is_on:
        return text
    text = re.sub(_ANY_IN_TEXT, _shown, re.sub(_QUOTED, lambda found: _shown(found) if _is_long(found[0]) else found[0], text))
    return _hide_host(text)


def _is_long(path: str) -> bool:
    return len([part for part in re.split(r"[/\\]+", path) if part]) > 1


def _shown(found: re.Match[str]) -> str:
    return f".../{_last_part(found[0])}"


def _last_part(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    if len(parts) > 1 and parts[-2].lower() in {"home", "users"}:
        return "~"  # a home directory is called like its user
    return parts[-1] if parts else ""


@functools.cache
def _own_home() -> re.Pattern[str] | None:
    home = os.path.expanduser("~").rstrip("/\\")
    return re.compile(rf"(?<![\w/]){re.escape(home)}[/\\]{_TAIL}") if len(home) > 2 and os.path.isabs(home) else None


@functools.cache
def host_name() -> str:
    """Return what this machine is called."""
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


@functools.cache
def _host_pattern() -> re.Pattern[str] | None:
    name = host_name()
    # short and common names are words that mean other things
    is_telling = len(name) >= 5 and name.lower() not in {"localhost", "ubuntu", "debian", "fedora", "docker", "server", "worker", "master"}
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])") if is_telling else None


def _hide_host(text: str) -> str:
    pattern = _host_pattern()
    return text if pattern is None else pattern.sub("[host]", text)
