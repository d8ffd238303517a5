from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import psutil
import pytest

from store import History, resource_totals
from store.recording import resources, sensors
from tests.store.polls import LIMIT_S, wait_for

NAMES = {"cpu_time_s", "cpu_percent", "memory_bytes"}


class FakeNVML(types.ModuleType):
    """NVIDIA's library as far as it is called, with two GPUs; the second has no energy counter and no fan of answering."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.joules = 1000.0

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index > 1:
            raise RuntimeError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return {"GPU-a": 0, "GPU-b": 1}[uuid]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(gpu=50 + handle)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(used=2**30)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 200_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if handle == 1:
            raise RuntimeError("Not Supported")
        self.joules += 10
        return int(self.joules * 1000)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNVML:
    fake = FakeNVML()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(resources, "_sampler", resources.ResourceSampler())  # one that has not looked yet
    return fake


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP_RESOURCES_S", "0.05")
    monkeypatch.setattr(resources, "FINAL_WAIT_S", LIMIT_S)  # a busy machine takes its time
    monkeypatch.setattr(sensors, "_POWERCAP", Path("/nowhere"))


def rows(history: History, run_id: str) -> list[tuple[str, str, float, float]]:
    with history._reading() as connection:
        found = connection.execute("SELECT name, device, elapsed_s, value FROM resources WHERE run_id = ? ORDER BY elapsed_s", (run_id,))
        return [tuple(row) for row in found]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "metahp-resources"]


def test_a_short_run_has_a_first_and_a_last_sample(history: History) -> None:
    with history.start_run(task="t") as run:
        sum(number * number for number in range(400_000))
        assert wait_for(lambda: rows(history, run.id))
    found = rows(history, run.id)
    assert {name for name, *_ in found} >= NAMES - {"cpu_percent"}
    assert len({elapsed for *_, elapsed, _ in found}) >= 2
    assert all(math.isfinite(value) and value >= 0 and elapsed >= 0 for *_, elapsed, value in found)
    totals = resource_totals(history, run.id)
    assert totals.cpu_s is not None
    assert totals.cpu_s > 0
    assert (totals.gpu_s, totals.energy_j) == (None, {})


def test_every_open_run_is_sampled_by_the_one_thread_which_ends_with_the_last(history: History) -> None:
    first, second = history.start_run(task="t"), history.start_run(task="t")
    assert wait_for(lambda: all(len({elapsed for *_, elapsed, _ in rows(history, run.id)}) > 2 for run in (first, second)))
    assert len(threads()) == 1
    assert threads()[0].daemon
    first.finish()
    n_first = len(rows(history, first.id))
    n_second = len(rows(history, second.id))
    assert wait_for(lambda: len(rows(history, second.id)) > n_second)
    second.finish()
    assert wait_for(lambda: not threads())
    assert len(rows(history, first.id)) == n_first


@pytest.mark.parametrize("switch", ["off", "0", "Off"])
def test_sampling_can_be_switched_off(history: History, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv("METAHP_RESOURCES_S", switch)
    with history.start_run(task="t") as run:
        assert not threads()
    assert rows(history, run.id) == []


def test_an_interval_that_is_none_is_named_and_the_default_taken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("METAHP_RESOURCES_S", "often")
    assert resources.interval_s() == resources.DEFAULT_INTERVAL_S
    assert "'often'" in caplog.text
    monkeypatch.setenv("METAHP_RESOURCES_S", "2.5")
    assert resources.interval_s() == 2.5


def test_gpus_are_sampled_with_their_energy_and_what_they_lack_is_absent(history: History, nvml: FakeNVML) -> None:
    run = history.start_run(task="t")
    assert wait_for(lambda: len({elapsed for *_, elapsed, _ in rows(history, run.id)}) > 2)
    run.finish()
    found = {(name, device) for name, device, *_ in rows(history, run.id)}
    assert {("gpu_percent", "gpu0"), ("gpu_memory_bytes", "gpu1"), ("gpu_power_w", "gpu1"), ("energy_counter_j", "gpu0")} <= found
    assert ("energy_integrated_j", "gpu1") in found
    assert not {("energy_counter_j", "gpu1"), ("energy_integrated_j", "gpu0")} & found
    totals = resource_totals(history, run.id)
    record = history.run(run.id)
    assert totals.energy_sources == {"gpu0": "counter of the device", "gpu1": "its power, integrated"}
    assert totals.energy_j["gpu0"] >= 20
    assert 0 < totals.energy_j["gpu1"] <= 200 * ((record.wall_s or 0) + 1)
    assert totals.gpu_s == pytest.approx((record.wall_s or 0) * 1.01)
    assert totals.gpu_source == "utilisation of the visible GPUs"


@pytest.mark.parametrize(
    ("visible", "devices"),
    [("1", {"gpu0": 51.0}), ("GPU-b,GPU-a", {"gpu0": 51.0, "gpu1": 50.0}), ("", {}), ("0,-1,1", {"gpu0": 50.0}), ("7", {})],
)
def test_only_visible_gpus_are_sampled(nvml: FakeNVML, monkeypatch: pytest.MonkeyPatch, visible: str, devices: dict[str, float]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    read = sensors.Sensors()
    read.find_gpus()
    found = read.read().levels
    assert {device: value for (name, device), value in found.items() if name == "gpu_percent"} == devices


def test_a_library_that_fails_costs_no_sample(history: History, nvml: FakeNVML, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("GPU is lost")

    for name in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage"):
        monkeypatch.setattr(nvml, name, fail, raising=False)
    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", fail, raising=False)
    with history.start_run(task="t") as run:
        pass
    assert {device for _, device, *_ in rows(history, run.id)} <= {"process", "machine"}
    assert rows(history, run.id)


def test_the_energy_of_a_cpu_is_counted_over_its_small_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone, part = tmp_path / "intel-rapl:0", tmp_path / "intel-rapl:0:0"
    for folder in (zone, part):
        folder.mkdir()
        (folder / "energy_uj").write_text("9000000\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")
    monkeypatch.setattr(sensors, "_POWERCAP", tmp_path)
    read = sensors.Sensors()
    first = read.read().energy_j
    (zone / "energy_uj").write_text("2000000\n")
    assert set(first) == {"cpu0"}
    assert read.read().energy_j["cpu0"] - first["cpu0"] == 3.0


def test_the_cpu_time_of_what_the_process_started_counts() -> None:
    read = sensors.Sensors().tree_cpu_s
    before = read()
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "done\n"
    while_alive = read()
    child.kill()
    child.wait()
    assert while_alive - before >= 0.25
    assert read() - before >= 0.25


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_samples_nothing_of_its_parent(history: History) -> None:
    run = history.start_run(task="t")
    child = os.fork()
    if child == 0:
        is_clean = resources.sampler()._runs == {} and resources.sampler()._thread is None
        os._exit(0 if is_clean else 1)
    assert os.waitpid(child, 0)[1] == 0
    run.finish()
    assert rows(history, run.id)


def test_where_the_system_tells_nothing_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    for name in ("cpu_times", "virtual_memory"):
        monkeypatch.setattr(psutil, name, refuse)
    for name in ("cpu_times", "memory_info", "children"):
        monkeypatch.setattr(psutil.Process, name, refuse)
    found = sensors.Sensors().read()
    assert (found.cpu_s, found.machine_cpu, found.levels) == (None, None, {})
