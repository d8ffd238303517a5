from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from store import environment


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "src").mkdir(parents=True)
    settings = ["-c", "user.email=a@example.com", "-c", "user.name=a", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), *settings, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    return folder


def head_of(folder: Path) -> str:
    return subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_read_from_below_the_repository(repository: Path) -> None:
    assert environment.git_commit(repository / "src") == head_of(repository)


def test_a_packed_branch_and_a_detached_head_and_a_worktree_are_read_too(repository: Path, tmp_path: Path) -> None:
    expected = head_of(repository)
    subprocess.run(["git", "-C", str(repository), "worktree", "add", "-q", str(tmp_path / "tree")], check=True)
    assert environment.git_commit(tmp_path / "tree") == expected
    subprocess.run(["git", "-C", str(repository), "pack-refs", "--all"], check=True)
    environment.git_commit.cache_clear()
    assert environment.git_commit(repository) == expected
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "--detach"], check=True)
    environment.git_commit.cache_clear()
    assert environment.git_commit(repository) == expected


def test_outside_a_repository_and_before_the_first_commit_there_is_no_commit(tmp_path: Path) -> None:
    assert environment.git_commit(tmp_path) is None
    subprocess.run(["git", "init", "-q", str(tmp_path / "empty")], check=True)
    assert environment.git_commit(tmp_path / "empty") is None


def test_versions_of_what_decides_a_run_are_known_without_importing_it() -> None:
    code = (
        "import sys; from store.environment import package_versions; found = package_versions(); "
        "assert not {'torch', 'numpy', 'lightning', 'transformers'} & set(sys.modules); print(sorted(found))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert {"numpy", "platform", "python", "torch"} <= set(ast.literal_eval(shown))


def test_a_dead_process_is_told_from_a_living_one() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert environment.is_process_alive(os.getpid())
    assert not environment.is_process_alive(child.pid)


def test_costs_are_positive_and_the_machine_is_anonymous() -> None:
    assert environment.cpu_seconds() > 0
    assert (environment.peak_memory_bytes() or 0) > 1_000_000
    assert len(environment.host_hash()) == 16
    assert environment.host_hash() == environment.host_hash()


@pytest.mark.parametrize(
    ("argument", "name"), [("/a/b/train.py", "train.py"), ("/a/pkg/__main__.py", "pkg"), ("-c", "python"), ("", "python")]
)
def test_the_program_has_a_name(argument: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [argument])
    assert environment.script_name() == name
