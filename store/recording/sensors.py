"""What a machine tells of its use: /proc, the energy counters of the CPU (RAPL) and of NVIDIA GPUs (NVML).

A sensor that is not there, or may not be read, is absent from what is returned; nothing here raises.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

_PROC = Path("/proc")
_POWERCAP = Path("/sys/class/powercap")
_MAX_PROCESSES = 1_000
"""Descendants looked at: a bound, should the table of processes be a cycle."""

PROCESS, MACHINE = "process", "machine"


class Reading(NamedTuple):
    """What the sensors said at one moment. Missing entries are sensors that are not there.

    Attributes:
        at_s: ``time.perf_counter`` of it.
        cpu_s: CPU time so far, in seconds: of this process with its descendants, under ``process``.
        machine_cpu: Busy and total CPU time of the machine since it started, in clock ticks.
        levels: ``(name, device)`` -> value now: ``memory_bytes``, ``gpu_percent``, ``gpu_memory_bytes``, ``gpu_power_w``.
        energy_j: Device -> joules so far, from a counter of the device.
    """

    at_s: float
    cpu_s: float | None = None
    machine_cpu: tuple[float, float] | None = None
    levels: Mapping[tuple[str, str], float] = MappingProxyType({})
    energy_j: Mapping[str, float] = MappingProxyType({})


class Sensors:
    """Reads everything there is. Used by one thread."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._gpus: list[tuple[str, Any]] = []
        self._rapl = _find_rapl()
        self._rapl_last: dict[str, float] = {}
        self._rapl_turns: dict[str, float] = {}
        self._complained: set[str] = set()

    def find_gpus(self) -> None:
        """Look up the GPUs that this process can see; to be called again when a run starts, since CUDA may have started meanwhile."""
        if self._nvml is None:
            self._nvml = _load_nvml() or False
        try:
            self._gpus = _visible_gpus(self._nvml) if self._nvml else []
        except Exception as error:  # a driver that does not fit the library, or none
            self._note("the GPUs", error)
            self._gpus = []

    def read(self) -> Reading:
        """Return what the sensors say now."""
        levels: dict[tuple[str, str], float] = {}
        energy: dict[str, float] = {}
        for name, value in (("memory_bytes", _process_memory()), ("machine_memory_bytes", _machine_memory())):
            if value is not None:
                levels["memory_bytes", MACHINE if name.startswith("machine") else PROCESS] = value
        for device, handle in self._gpus:
            self._read_gpu(device, handle, levels, energy)
        for device, (counter, span) in self._rapl.items():
            self._read_rapl(device, counter, span, energy)
        return Reading(time.perf_counter(), _tree_cpu_s(), _machine_cpu(), levels, energy)

    def _read_gpu(self, device: str, handle: Any, levels: dict[tuple[str, str], float], energy: dict[str, float]) -> None:
        nvml = self._nvml
        for name, read in (
            ("gpu_percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            ("gpu_memory_bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            ("gpu_power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        ):
            value = self._try(f"{name} of {device}", read)
            if value is not None:
                levels[name, device] = value
        joules = self._try(f"energy of {device}", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)
        if joules is not None:
            energy[device] = joules

    def _read_rapl(self, device: str, counter: Path, span: float, energy: dict[str, float]) -> None:
        found = self._try(f"energy of {device}", lambda: int(counter.read_text()) / 1e6)
        if found is None:
            return
        if found < self._rapl_last.get(device, found):  # the counter is small and starts again every few hours
            self._rapl_turns[device] = self._rapl_turns.get(device, 0.0) + span
        self._rapl_last[device] = found
        energy[device] = found + self._rapl_turns.get(device, 0.0)

    def _try(self, what: str, read: Any) -> float | None:
        try:
            return float(read())
        except Exception as error:  # a sensor that this device does not have
            self._note(what, error)
            return None

    def _note(self, what: str, error: Exception) -> None:
        if what not in self._complained:
            self._complained.add(what)
            logger.debug("No reading of %s: %s", what, error)


def _load_nvml() -> Any:
    """Return NVIDIA's library, started; None where the package or the driver is missing."""
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # not installed, or no driver
        logger.debug("No NVML: %s", error)
        return None
    return nvml


def _visible_gpus(nvml: Any) -> list[tuple[str, Any]]:
    """Return name and handle of the GPUs this process may use, in its own order: ``gpu0`` is its ``cuda:0``."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        uuids = [str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) for index in range(torch.cuda.device_count())]
        if uuids and all(uuids):
            names = [uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}" for uuid in uuids]
            return [(f"gpu{index}", nvml.nvmlDeviceGetHandleByUUID(name)) for index, name in enumerate(names)]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [(f"gpu{index}", nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())]
    handles = []
    for word in (part.strip() for part in chosen.split(",")):
        if word.isdigit():
            handles.append(nvml.nvmlDeviceGetHandleByIndex(int(word)))
        elif word.startswith(("GPU-", "MIG-")):
            handles.append(nvml.nvmlDeviceGetHandleByUUID(word))
        else:
            break  # as CUDA does: what comes after an unknown word is invisible
    return [(f"gpu{index}", handle) for index, handle in enumerate(handles)]


def _find_rapl() -> dict[str, tuple[Path, float]]:
    """Return the readable energy counters of whole CPU packages: device -> file and the joules after which it starts again."""
    found = {}
    try:
        for zone in sorted(_POWERCAP.glob("intel-rapl:*")):
            counter = zone / "energy_uj"
            if zone.name.count(":") == 1 and os.access(counter, os.R_OK):
                found[f"cpu{zone.name.partition(':')[2]}"] = (counter, int((zone / "max_energy_range_uj").read_text()) / 1e6)
    except (OSError, ValueError) as error:
        logger.debug("No RAPL: %s", error)
    return found


def _tree_cpu_s() -> float | None:
    """Return the CPU time of this process and everything it started, in seconds; None where the system does not tell."""
    try:
        me, tick = os.getpid(), os.sysconf("SC_CLK_TCK")
        others = sum(sum(_ticks(pid)) for pid in _descendants(me) if pid != me)
        return time.process_time() + (sum(_ticks(me)[2:]) + others) / tick  # the table of processes counts in hundredths
    except (OSError, ValueError, IndexError, AttributeError) as error:
        logger.debug("No CPU time from %s: %s", _PROC, error)
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _ticks(pid: int) -> list[int]:
    """Return the ticks of a process in user and system mode, and the same of its children that have ended.

    Zeros if it has ended itself: its parent has its time then.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [0, 0, 0, 0]
    return [int(word) for word in text.rpartition(")")[2].split()[11:15]]


def _descendants(root: int) -> Iterator[int]:
    waiting, seen = [root], 0
    while waiting and seen < _MAX_PROCESSES:
        pid = waiting.pop()
        seen += 1
        yield pid
        try:
            tasks = os.listdir(_PROC / str(pid) / "task")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for task in tasks:
            try:
                waiting += [int(word) for word in (_PROC / str(pid) / "task" / task / "children").read_text().split()]
            except OSError:  # the thread has ended, or the kernel was built without it
                continue


def _machine_cpu() -> tuple[float, float] | None:
    """Return busy and total ticks of all cores; None where the system does not tell."""
    try:
        with (_PROC / "stat").open() as file:
            ticks = [float(word) for word in file.readline().split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    except (OSError, ValueError, IndexError) as error:
        logger.debug("No use of the machine's CPU: %s", error)
        return None


def _process_memory() -> float | None:
    """Return the resident memory of this process alone, in bytes."""
    try:
        return float((_PROC / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError) as error:
        logger.debug("No memory of this process: %s", error)
        return None


def _machine_memory() -> float | None:
    """Return the memory of the machine that is in use and cannot be freed, in bytes."""
    try:
        with (_PROC / "meminfo").open() as file:
            found = dict(line.split(":", 1) for line in file)
        return 1024.0 * (int(found["MemTotal"].split()[0]) - int(found["MemAvailable"].split()[0]))
    except (OSError, ValueError, KeyError) as error:
        logger.debug("No memory of the machine: %s", error)
        return None
