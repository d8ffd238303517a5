"""What a replay does when a method or a process fails, and when it is interrupted: real processes, real signals."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from compare_baselines.replay import Method, Protocol, load_benchmark, run_replay
from compare_baselines.replay.protocol import Benchmark
from metahp_cli.main import main
from store import History, InvalidArgumentError, WorkerDiedError
from tests.compare_baselines import recorded

ROOT = Path(__file__).parents[2]
PROTOCOL = ("--n-hist", "8", "--budget", "3", "--seeds", "2", "--folds", "loo", "--workers", "2")
COMMAND = ("compare-baselines", "replay", *PROTOCOL, "--history")


class Killed(Method):
    """Is killed near its end, as the kernel does it, when everything else has ended."""

    name = "killed"

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        if self.task.name == "c" and self.task.seed == zlib.crc32(b"c 1"):
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return len(tried)


class Crashed(Method):
    """Ends its process with an exit code."""

    name = "crashed"

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        os._exit(3)


class Raising(Method):
    """Cannot cope with this history."""

    name = "raising"

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        raise ZeroDivisionError("no\nchoice")


class Sleeping(Method):
    """Never ends by itself."""

    name = "sleeping"

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        Path(os.environ["SLEEPING"], str(os.getpid())).touch()
        time.sleep(600)
        return 0


def own(cls: type[Method]) -> str:
    return f"tests.compare_baselines.test_replay_processes:{cls.__name__}"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded.write(tmp_path_factory.mktemp("processes") / "h.db", *((name, 12, 0.0) for name in "abc"))


@pytest.fixture(scope="module")
def benchmark(path: Path) -> Benchmark:
    with History(path) as history:
        return load_benchmark(history, Protocol(8, 3, 2, folds=0))


def test_a_killed_process_is_a_sentence_and_what_was_measured_is_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*COMMAND, str(path), "--methods", f"random,grid,{own(Killed)}"])
    out, err = capsys.readouterr()
    assert stop.value.code == 1
    assert "3 tasks, 1 seed;" in out
    assert all(name in out for name in ("random", "grid", "Killed"))
    first, second = err.splitlines()
    assert first == "Measured before a process died:"
    assert second.startswith("Error: A process of a replay must live to its end, but one was killed by signal 9")
    assert second.endswith(
        f"during {own(Killed)} on task c of fold 3, seed 1. Take fewer processes (--workers 1), or leave this method out with --methods."
    )


def test_an_exit_code_is_named_and_what_is_not_measured_is_not_reported(benchmark: Benchmark) -> None:
    with pytest.raises(WorkerDiedError, match=f"ended with exit code 3 during {own(Crashed)}") as died:
        run_replay(benchmark, [own(Crashed)], workers=2)
    assert died.value.report is None


def test_a_method_that_raises_is_left_out_with_its_reason(benchmark: Benchmark) -> None:
    report = run_replay(benchmark, [own(Raising), "grid"], workers=2)
    assert list(report["methods"]) == ["grid"]
    reason, traceback = report["left_out"][own(Raising)].values()
    assert reason.startswith("ZeroDivisionError: no choice (test_replay_processes.py, line ")
    assert "in choose" in traceback


def test_where_every_method_raises_there_is_no_comparison(benchmark: Benchmark) -> None:
    with pytest.raises(InvalidArgumentError, match=r"needs a method that works, but .*Raising' raised an error: ZeroDiv"):
        run_replay(benchmark, ["random", own(Raising)], workers=1)


def test_the_first_seed_is_reported_before_the_others(benchmark: Benchmark) -> None:
    early: list[dict] = []
    shares: list[float] = []
    names = ["grid", "best-of-past", "random"]
    whole = run_replay(benchmark, names, workers=1, first=early.append, progress=lambda share, _: shares.append(share))
    assert [report["protocol"]["seeds"] for report in (*early, whole)] == [1, 2]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    one_seed = replace(benchmark, protocol=replace(benchmark.protocol, seeds=1))
    with_one = run_replay(one_seed, names, workers=1, first=early.append)
    assert len(early) == 1
    assert early[0]["methods"]["grid"]["regret"] == with_one["methods"]["grid"]["regret"]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_ctrl_c_ends_every_process_with_one_line(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "metahp_cli", *COMMAND, str(path), "--methods", own(Sleeping)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLEEPING": str(tmp_path), "TMPDIR": str(tmp_path)}
    # A terminal sends Ctrl-C to every process of the group, so this one gets a group of its own.
    # What a shell starts in the background ignores SIGINT, and so would all its children.
    pipe, listen = subprocess.PIPE, functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=tmp_path, start_new_session=True, preexec_fn=listen
    )
    wait_for(lambda: len(workers_in(tmp_path)) == 2)
    workers = workers_in(tmp_path)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out, err) == (130, "", "Interrupted.\n")
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not list(tmp_path.glob("metahp-replay-*"))


def workers_in(folder: Path) -> list[int]:
    return [int(file.name) for file in folder.iterdir() if file.name.isdecimal()]
