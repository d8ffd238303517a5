"""Who holds the write lock of a SQLite file, asked without taking it.

The question needs a file descriptor of its own, and closing any descriptor drops the locks of every connection of its process
(POSIX). So it is asked by a short program: run as ``python lock_probe.py FILE OFFSET``, it prints the holder's process id.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_WAL_WRITE_LOCK = 120  # byte of the -shm file, see SQLite's walformat
_RESERVED_LOCK = 0x40000001  # byte of the database file, see SQLite's os.h
_UNKNOWN = -1


def find_writer(path: Path) -> int | None:
    """Return the id of the process that is writing, -1 if it is one that cannot be named; None if nobody is.

    Args:
        path: A SQLite database.
    """
    shared = Path(f"{path}-shm")
    for file, offset in ((shared, _WAL_WRITE_LOCK), (path, _RESERVED_LOCK)):
        if not file.exists() or sys.platform == "win32":
            continue
        done = subprocess.run([sys.executable, "-I", __file__, str(file), str(offset)], capture_output=True, text=True, timeout=30)
        if done.stdout.strip():
            return int(done.stdout)
    return None


def _probe(file: str, offset: int) -> int | None:
    import fcntl
    import struct

    descriptor = os.open(file, os.O_RDWR if os.access(file, os.W_OK) else os.O_RDONLY)
    if sys.platform.startswith("linux") and struct.calcsize("P") == 8:
        layout = "hhqqi4x"  # struct flock of 64-bit Linux
        asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else pid or _UNKNOWN
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except OSError:
        return _UNKNOWN
    return None


if __name__ == "__main__":
    holder = _probe(sys.argv[1], int(sys.argv[2]))
    if holder is not None:
        sys.stdout.write(str(holder))
