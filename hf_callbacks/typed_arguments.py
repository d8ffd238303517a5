"""Which fields a user passed to the constructor of ``TrainingArguments``, the library's default among them.

The host does not record that, and a value that equals its default does not show it. ``TrainingArguments.__new__`` sees the keywords
first, for every subclass as well, and leaves their names on the object, in the note that arguments of ``autoconfig`` carry anyway.
Who hands over all fields (a parser of the command line, ``dataclasses.replace``, ``Other(**args.to_dict())``) has typed none of them:
there the command line counts as far as it names them. What a library constructs tells nothing of its user.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainingArguments

from hf_callbacks.provenance import FIELDS, Provenance, write_provenance
from hf_callbacks.trainer_inputs import arguments_by_name
from store.switches import is_off

logger = logging.getLogger(__name__)

_PARSER = "transformers.hf_argparser"
"""Its ``parse_dict`` and ``parse_json_file`` pass exactly what the user wrote, so it counts as the user."""


def note_typed_arguments() -> None:
    """Have all arguments that are made from now on keep a note of what was typed; a second call, or one under METAHP=off, does nothing."""
    if is_off() or "__new__" in vars(TrainingArguments):
        return

    @functools.wraps(TrainingArguments.__init__)
    def make(cls: type[Any], /, *args: Any, **kwargs: Any) -> Any:
        following = super(TrainingArguments, cls).__new__  # of a class beside it, where it has one
        made = object.__new__(cls) if following is object.__new__ else following(cls, *args, **kwargs)
        if (args or kwargs) and not is_off():
            try:
                _note(made, args, kwargs, sys._getframe(1))
            except Exception as error:  # the arguments are what matters
                logger.debug("What was passed to %s could not be noted: %s", cls.__name__, error)
        return made

    TrainingArguments.__new__ = staticmethod(make)  # type: ignore[method-assign,assignment]


def typed_on_command_line(names: Collection[str], line: Collection[str]) -> frozenset[str]:
    """Return which fields the options of a command line name, in full and with hyphens or underscores."""
    options = {option.partition("=")[0].removeprefix("--").replace("-", "_") for option in line if option.startswith("--")}
    return frozenset(options & {*names})


def _note(made: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: FrameType) -> None:
    fields = {item.name for item in dataclasses.fields(made) if item.init and item.name not in FIELDS}
    given = frozenset(fields & arguments_by_name(type(made), args, kwargs).keys())
    is_whole = 2 * len(given) > len(fields)
    if is_whole:
        given = typed_on_command_line(given, sys.argv[1:])
    is_parsed = caller.f_globals.get("__name__") == _PARSER
    if given and (is_parsed or {"site-packages", "dist-packages"}.isdisjoint(Path(caller.f_code.co_filename).parts)):
        write_provenance(made, Provenance(explicit=given, is_complete=not is_whole))
