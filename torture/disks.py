"""Real file systems of our own, where the system lets us mount some: small ones, read-only ones."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REMOUNT_S = 10.0


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@functools.cache
def can_mount() -> bool:
    """Return whether this process may mount a file system."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if not _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
            return False
        subprocess.run(["umount", folder], check=False)
        return True


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[Path]:
    """Mount a file system with room for so much."""
    folder.mkdir(parents=True)
    if not _mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)):
        raise OSError(f"no file system could be mounted at {folder}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, mode: str) -> None:
    """Make a file system of ours read-only (``ro``) or writable again (``rw``), once nobody has a file open there for writing."""
    deadline = time.monotonic() + REMOUNT_S
    while not _mount("-o", f"remount,{mode}", str(folder)):
        if time.monotonic() > deadline:
            raise OSError(f"{folder} could not be made {mode}")
        time.sleep(0.05)  # a writer that was just closed lets go of its file a moment later
