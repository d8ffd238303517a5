"""The use of a machine: CPU and memory (psutil), the energy counters of the CPU (RAPL) and of NVIDIA GPUs (NVML).

A sensor that is not there, or may not be read, is absent from what is returned; nothing here raises.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

_POWERCAP = Path("/sys/class/powercap")

PROCESS, MACHINE = "process", "machine"

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class SensorReading:
    """What the sensors showed at one moment. Missing entries are sensors that are not there.

    Attributes:
        at_s: ``time.perf_counter`` of it.
        cpu_s: CPU time so far, in seconds: of this process with its descendants, under ``process``.
        machine_cpu: Busy and total CPU time of the machine since it started, in seconds.
        levels: ``(name, device)`` -> value now: ``memory_bytes``, ``gpu_percent``, ``gpu_memory_bytes``, ``gpu_power_w``.
        energy_j: Device -> joules so far, from a counter of the device.
    """

    at_s: float
    cpu_s: float | None = None
    machine_cpu: tuple[float, float] | None = None
    levels: Mapping[tuple[str, str], float] = field(default_factory=dict)
    energy_j: Mapping[str, float] = field(default_factory=dict)


class Sensors:
    """Reads everything there is. Used by one thread."""

    def __init__(self) -> None:
        import psutil  # by the thread that samples, not by the start of a training

        self._psutil, self._process = psutil, psutil.Process()
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

    def read(self) -> SensorReading:
        """Return what the sensors show now."""
        levels: dict[tuple[str, str], float] = {}
        energy: dict[str, float] = {}
        for device, read in ((PROCESS, lambda: self._process.memory_info().rss), (MACHINE, self._machine_memory)):
            used = self._try(f"memory of the {device}", read)
            if used is not None:
                levels["memory_bytes", device] = float(used)
        for device, handle in self._gpus:
            self._read_gpu(device, handle, levels, energy)
        for device, (counter, span) in self._rapl.items():
            self._read_rapl(device, counter, span, energy)
        cpu_s = self._try("CPU time of the process", self.tree_cpu_s)
        return SensorReading(time.perf_counter(), cpu_s, self._try("CPU time of the machine", self._machine_cpu), levels, energy)

    def tree_cpu_s(self) -> float:
        """Return the CPU time of this process and everything it started, in seconds."""
        seconds: float = time.process_time() + sum(self._process.cpu_times()[2:4])  # the table of processes counts in hundredths
        for child in self._process.children(recursive=True):
            try:
                seconds += float(sum(child.cpu_times()[:4]))
            except self._psutil.Error:  # it has ended: its parent has its time now
                continue
        return seconds

    def _machine_cpu(self) -> tuple[float, float]:
        """Return busy and total time of all cores, in seconds."""
        times = self._psutil.cpu_times()._asdict()
        total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # part of user and nice
        return total - times["idle"] - times.get("iowait", 0.0), total

    def _machine_memory(self) -> int:
        """Return the memory that is in use and cannot be freed, in bytes."""
        memory = self._psutil.virtual_memory()
        return int(memory.total - memory.available)

    def _read_gpu(self, device: str, handle: Any, levels: dict[tuple[str, str], float], energy: dict[str, float]) -> None:
        nvml = self._nvml
        for name, read in (
            ("gpu_percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            ("gpu_memory_bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            ("gpu_power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        ):
            value = self._try(f"{name} of {device}", read)
            if value is not None:
                levels[name, device] = float(value)
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

    def _try(self, what: str, read: Callable[[], _Found]) -> _Found | None:
        try:
            return read()
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
