"""Arguments that torch.save wrote are read; nothing in such a file is ever imported, called or let grow."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from store.importers.bounded_files import UnreadableRecordError
from store.importers.inert_pickle import MAX_PICKLE_BYTES, Stub, interpret, read_saved_object


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class Plain:
    """An object of a user's own."""

    def __init__(self) -> None:
        self.number, self.text, self.items, self.nested = 3, "x", [1, 2.5, None, True], {"a": (1, 2)}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_an_object_of_every_protocol_gives_its_state(protocol: int) -> None:
    found = interpret(pickle.dumps(Plain(), protocol))
    assert isinstance(found, Stub)
    state = found.state if found.state is not None else {}
    assert state == {"number": 3, "text": "x", "items": [1, 2.5, None, True], "nested": {"a": (1, 2)}}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_plain_values_come_back_as_they_are(protocol: int) -> None:
    value = {"a": [1, -5, 2**70, 1.5, "é", b"b"], "s": {1, 2}, "n": None, "t": ()}
    found = interpret(pickle.dumps(value, protocol))
    assert found["a"][:5] == value["a"][:5]  # type: ignore[index]
    assert (found["n"], found["t"]) == (None, ())


def test_what_would_run_a_command_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "training_args.bin"
    torch.save(Evil(tmp_path / "ran"), path)
    found = read_saved_object(path)
    assert (found.name, not (tmp_path / "ran").exists()) == ("posix.system", True)
    path.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    assert read_saved_object(path).args == (f"touch {tmp_path / 'ran'}",)
    assert not (tmp_path / "ran").exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "training_args.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("training_args/data.pkl", bytes(20 * MAX_PICKLE_BYTES))
    assert path.stat().st_size < 200_000
    with pytest.raises(UnreadableRecordError, match="unpacks to more than 4 MiB"):
        read_saved_object(path)


def nested(levels: int) -> bytes:
    """A list of lists of lists, each twice: some bytes that stand for 2 to the power of ``levels`` values."""
    body = b"\x80\x02]"
    for _ in range(levels):
        body += b"q\x00](h\x00h\x00e"
    return body + b"."


HOSTILE = {
    "text of exabytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.",
    "bytes of gigabytes": b"\x80\x03B\xff\xff\xff\x7fx.",
    "cut off": b"\x80\x02}q\x00(X\x03\x00\x00\x00abc",
    "stack underflow": b"\x80\x02ub.",
    "extension registry": b"\x80\x02\x82\x01.",
    "out of band buffer": b"\x80\x05\x97.",
    "call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "call with a list": b"\x80\x02cos\nsystem\n]R.",
    "old class": b"\x80\x02(cos\nsystem\no.",
    "no mark": b"\x80\x02Nt.",
    "memo that is not there": b"\x80\x02h\x07.",
    "number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "empty": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_damaged_and_hostile_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableRecordError, match="a pickle"):
        interpret(data)


def test_a_memo_index_of_billions_costs_nothing() -> None:
    assert interpret(b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_lists_nested_beyond_counting_are_neither_copied_nor_written_out(tmp_path: Path) -> None:
    from store.importers.hf_trainer import _plain

    found = interpret(nested(60))
    assert isinstance(found, list)
    assert _plain(found) is None
    assert _plain(Stub("a", (found,))) is None


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"PK\x03\x04broken", b"{}"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "training_args.bin"
    path.write_bytes(content)
    with pytest.raises(UnreadableRecordError):
        read_saved_object(path)


def test_an_archive_with_paths_that_lead_out_is_never_extracted(tmp_path: Path) -> None:
    path = tmp_path / "in" / "training_args.bin"
    path.parent.mkdir()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../data.pkl", pickle.dumps({"a": 1}))
    path.write_bytes(buffer.getvalue())
    assert read_saved_object(path) == {"a": 1}
    assert [item.name for item in tmp_path.rglob("*")] == ["in", "training_args.bin"]
