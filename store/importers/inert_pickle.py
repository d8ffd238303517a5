"""``training_args.bin`` read without unpickling: the opcodes of a pickle interpreted by hand, on data only.

``torch.load`` executes a pickle, and ``weights_only=True`` refuses TrainingArguments. Here nothing is imported and nothing is
called: a class becomes its name, a call or an instance a ``Stub`` of name, arguments and state. What opcodes may build is bounded.
Formats: PEP 307, PEP 3154, ``pickletools`` of the standard library; ``torch.save`` writes a stored zip with ``<name>/data.pkl``.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.importers.bounded_files import MIB, UnreadableRecordError, read_bytes

MAX_PICKLE_BYTES = 4 * MIB
_MAX_PICKLE_BYTES = 64 * MIB
_MAX_OPCODES = 500_000
_MARK = object()
_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_LITERALS = frozenset(
    str.split(
        "BININT BININT1 BININT2 INT LONG LONG1 LONG4 BINFLOAT FLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
        "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
    )
)
_IGNORED = frozenset({"PROTO", "FRAME"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(slots=True)
class Stub:
    """What stands in the place of a class, a call or an instance.

    Attributes:
        name: Dotted name of the class or function; it was not imported.
        args: Arguments it would have been called with.
        state: What would have been set on the instance.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = field(default=None)


def read_saved_object(path: Path) -> Any:
    """Return what ``torch.save`` wrote of an object, as plain values and stubs.

    Raises:
        UnreadableRecordError: If it is no such file, too large, or uses opcodes that no plain object needs.
    """
    data = read_bytes(path, _MAX_PICKLE_BYTES)
    if data[:2] == b"PK":
        data = _member(data)
    elif data[:1] != b"\x80":
        raise UnreadableRecordError("a file was not written by torch.save")
    return interpret(data)


def _member(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [item for item in archive.infolist() if item.filename.count("/") == 1 and item.filename.endswith("/data.pkl")]
            if len(found) != 1:
                raise UnreadableRecordError("a file was not written by torch.save")
            with archive.open(found[0]) as file:  # reads no more than asked for, whatever the headers promise
                content = file.read(MAX_PICKLE_BYTES + 1)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise UnreadableRecordError("a file is a damaged archive") from error
    except Exception as error:  # zlib and lzma have errors of their own
        if isinstance(error, UnreadableRecordError):
            raise
        raise UnreadableRecordError("a file is a damaged archive") from error
    if len(content) > MAX_PICKLE_BYTES:
        raise UnreadableRecordError(f"an archive unpacks to more than {MAX_PICKLE_BYTES // MIB} MiB")
    return content


def interpret(data: bytes) -> Any:
    """Return what a pickle describes, as plain values and stubs.

    Raises:
        UnreadableRecordError: If it is damaged, too large, or uses opcodes that no plain object needs.
    """
    machine = _Machine()
    if len(data) > MAX_PICKLE_BYTES:
        raise UnreadableRecordError(f"a pickle is larger than {MAX_PICKLE_BYTES // MIB} MiB")
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MAX_OPCODES:
                raise UnreadableRecordError("a pickle has too many opcodes")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except UnreadableRecordError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, UnicodeError) as error:
        raise UnreadableRecordError("a pickle is damaged") from error
    raise UnreadableRecordError("a pickle is damaged")


class _Machine:
    """The stack and memo of a pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Return the topmost value and take it off."""
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Interpret one opcode, on data only."""
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name == "MARK":
            self._stack.append(_MARK)
        elif not (self._memo_step(name, argument) or self._container_step(name) or self._object_step(name, argument)):
            raise UnreadableRecordError(f"a pickle uses the opcode {name}, which no plain object needs")

    def _memo_step(self, name: str, argument: Any) -> bool:
        if name in {"BINPUT", "LONG_BINPUT", "PUT"}:
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in {"BINGET", "LONG_BINGET", "GET"}:
            self._stack.append(self._memo[argument])
        else:
            return False
        return True

    def _marked(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self._stack[place + 1 :]
        del self._stack[place:]
        return values

    def _container_step(self, name: str) -> bool:
        if name == "EMPTY_TUPLE":
            self._stack.append(())
        elif name in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(values)))
        elif name == "TUPLE":
            self._stack.append(tuple(self._marked()))
        elif name == "LIST":
            self._stack.append(self._marked())
        elif name in {"DICT", "SETITEMS"}:
            values = self._marked()
            self._set_items({} if name == "DICT" else None, values)
        elif name == "SETITEM":
            value, key = self.pop(), self.pop()
            self._set_items(None, [key, value])
        elif name in {"APPENDS", "ADDITEMS"}:
            self._extend(self._marked())
        elif name == "APPEND":
            self._extend([self.pop()])
        elif name == "FROZENSET":
            self._stack.append(self._marked())
        else:
            return False
        return True

    def _set_items(self, target: dict[Any, Any] | None, values: list[Any]) -> None:
        if target is not None:
            self._stack.append(target)
        top = self._stack[-1]
        if isinstance(top, dict):
            top.update(
                {key: value for key, value in zip(values[::2], values[1::2], strict=True) if isinstance(key, str | int | float | bool)}
            )

    def _extend(self, values: list[Any]) -> None:
        top = self._stack[-1]
        if isinstance(top, list):
            top.extend(values)
        elif isinstance(top, set):
            top.update(value for value in values if isinstance(value, str | int | float | bool))

    def _object_step(self, name: str, argument: Any) -> bool:
        if name == "GLOBAL":
            self._stack.append(Stub(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            self._stack.append(Stub(f"{module}.{attribute}"))
        elif name in {"REDUCE", "NEWOBJ"}:
            arguments, called = self.pop(), self.pop()
            self._stack.append(_call(called, arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, called = self.pop(), self.pop(), self.pop()
            self._stack.append(_call(called, arguments))
        elif name == "BUILD":
            state = self.pop()
            if isinstance(self._stack[-1], Stub):
                self._stack[-1].state = state
        elif name == "POP":
            self._stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name in {"BINPERSID", "PERSID"}:
            if name == "BINPERSID":
                self.pop()
            self._stack.append(Stub("storage"))
        else:
            return False
        return True


def _call(called: Any, arguments: Any) -> Stub:
    # a tuple is shared, not copied: copies of one long list could fill the memory from a small file
    if not isinstance(called, Stub) or not isinstance(arguments, tuple):
        raise ValueError("a call of something else, or with something else")
    return Stub(called.name, arguments)
