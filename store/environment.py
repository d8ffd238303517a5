"""Where a run runs: versions, commit, machine. Read once per process; none of the packages is imported and no program started for it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from store.privacy import host_name
from store.switches import RECORD_PATHS

logger = logging.getLogger(__name__)

_DISTRIBUTIONS = {
    "metahp": "lightning-metahp",
    "torch": "torch",
    "lightning": "lightning",
    "transformers": "transformers",
    "numpy": "numpy",
}


@functools.cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a run does; those not installed are absent."""
    found = {"python": ".".join(str(part) for part in sys.version_info[:3]), "platform": sys.platform}
    for name, distribution in _DISTRIBUTIONS.items():
        with contextlib.suppress(PackageNotFoundError):  # absent
            found[name] = version(distribution)
    return found


def describe_environment() -> dict[str, str]:
    """Return the versions, with the accelerator's name where the program already uses one, and the place where it was asked for."""
    return {**package_versions(), **_gpu_name(), **_place()}


def _place() -> dict[str, str]:
    """Return what the machine is called and where the script lies: ``METAHP_RECORD_PATHS=1`` only."""
    if not RECORD_PATHS.is_on:
        return {}
    script = script_path()
    return {"host": host_name(), **({"script": str(script.absolute())} if script else {})}


def _gpu_name() -> dict[str, str]:
    torch = sys.modules.get("torch")
    try:
        # is_initialized first: asking for a name would otherwise start CUDA in a program that never wanted it
        if torch is not None and torch.cuda.is_initialized():
            return {"gpu": str(torch.cuda.get_device_name())}
    except Exception as error:  # a half-imported torch or a broken driver; the run goes on without the name
        logger.debug("The accelerator's name could not be read: %s", error)
    return {}


def script_path() -> Path | None:
    """Return the file that Python was started with, None in a notebook or an interactive session."""
    started = sys.argv[0] if sys.argv else ""
    if not started or started in {"-", "-c", "-m"}:
        return None
    path = Path(started)
    return path if path.exists() else None


def script_name() -> str:
    """Return a name for the program: that of its script, ``python`` where there is none."""
    started = sys.argv[0] if sys.argv else ""
    name = os.path.basename(started)
    if name == "__main__.py":  # python -m package
        name = os.path.basename(os.path.dirname(started))  # Python makes it absolute
    return name if name and not name.startswith("-") else "python"


_GENERIC_FOLDERS = frozenset(
    str.split("src source code script scripts bin app apps examples notebooks notebook python project work content tmp")
)


def script_folder() -> str | None:
    """Return the name of the folder that tells a program from another of the same name; folders such as ``src`` do not.

    It is that of the script, else the one it runs in. None where nothing telling is above it but the user's home.
    """
    started = sys.argv[0] if sys.argv else ""
    has_script = bool(started) and not started.startswith("-")
    try:
        folder = Path(started).absolute().parent if has_script else Path.cwd()
    except OSError:  # the working directory was deleted
        return None
    if has_script and Path(started).name == "__main__.py":
        folder = folder.parent  # of a package, whose name is the program's
    for candidate in (folder, *folder.parents[:3]):
        if candidate in (Path.home(), candidate.parent) or candidate.parent.as_posix() in ("/home", "/Users"):
            return None
        if candidate.name.lower() not in _GENERIC_FOLDERS:
            return candidate.name
    return None


@functools.cache
def git_commit(folder: Path | None = None) -> str | None:
    """Return the commit checked out where the script lies, read from git's files; None outside a repository.

    Args:
        folder: Where to look instead, upwards.
    """
    try:
        if folder is None:
            script = script_path()
            folder = script.parent if script else Path.cwd()
        for candidate in (folder.resolve(), *folder.resolve().parents):
            marker = candidate / ".git"
            if marker.is_dir():
                return _read_head(marker)
            if marker.is_file():  # a worktree or submodule: the file names the real place
                target = marker.read_text().removeprefix("gitdir:").strip()
                return _read_head((candidate / target).resolve())
    except (OSError, UnicodeDecodeError) as error:
        logger.debug("The git commit could not be read: %s", error)
    return None


def _read_head(git_directory: Path) -> str | None:
    head = (git_directory / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head or None
    reference = head.removeprefix("ref:").strip()
    shared = git_directory
    common = git_directory / "commondir"
    if common.is_file():
        shared = (git_directory / common.read_text().strip()).resolve()
    for place in (git_directory, shared):
        if (place / reference).is_file():
            return (place / reference).read_text().strip() or None
    packed = shared / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            if line.endswith(f" {reference}"):
                return line.split()[0]
    return None  # a repository without a commit


@functools.cache
def host_hash() -> str:
    """Return a stable, anonymous text for this machine and its set of process ids: a pid means something only within one."""
    parts = [host_name()]
    for source in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with contextlib.suppress(OSError):  # not on this system
            parts.append(Path(source).read_text().strip())
    with contextlib.suppress(OSError):  # not on this system
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def is_process_alive(pid: int) -> bool:
    """Return whether a process of this machine exists; True where that cannot be found out."""
    if sys.platform == "win32":
        return True  # os.kill(pid, 0) would end it there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended, in seconds."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory of this process so far, in bytes; None where the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_memory_bytes() -> int | None:
    """Return the largest memory PyTorch held on one of this process's CUDA devices, in bytes; None if none was ever used."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            return max(int(torch.cuda.max_memory_allocated(index)) for index in range(torch.cuda.device_count()))
    except Exception as error:  # a broken driver after an error on the device; the run ends properly without the number
        logger.debug("The accelerator's peak memory could not be read: %s", error)
    return None
