"""The documentation does what it says: snippets run, links lead somewhere, generated pages match the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def snippets() -> list[tuple[str, str]]:
    """Every ```python block of every page, named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match.group(1)))
    return found


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in snippets()])
@pytest.mark.slow
def test_a_snippet_runs_and_leaves_a_finished_run(code: str, tmp_path: Path) -> None:
    history = tmp_path / "history.db"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "METAHP_HISTORY": str(history), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "metahp" in done.stdout + done.stderr or "MetaHPCallback" not in code, "a first run should say what it does"
    if "MetaHPCallback" in code:
        from store import History

        with History(history, create=False) as opened:
            assert [str(run.status) for run in opened.runs()] == ["completed"]
            assert opened.runs()[0].objective_best is not None


def test_the_readme_has_a_snippet_of_about_ten_lines_for_each_host() -> None:
    ours = [code for name, code in snippets() if name.startswith("README")]
    assert [("lightning_metahp" in code, "hf_callbacks" in code) for code in ours] == [(True, False), (False, True)]
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 12 for code in ours)


def test_generated_pages_match_the_code() -> None:
    done = subprocess.run([sys.executable, "-m", "docs.generate", "--check"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_every_command_has_a_help_with_an_example() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, part in re.findall(r"^## metahp (\S+.*?)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL):
        if "Commands:" in part and "--history" not in part:
            continue  # only groups commands
        assert f"Example: metahp {name.split()[0]}" in part, name
        for option in ("--history", "--format", "--debug"):
            assert option in part, f"{name} lacks {option}"


def test_every_make_target_named_in_a_page_exists() -> None:
    named = {target for page in PAGES for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text(encoding="utf-8"))}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test", "check"} <= targets
    assert named <= targets


def test_every_test_named_in_a_page_exists() -> None:
    found = {path.stem: set(re.findall(r"def (test_\w+)", path.read_text())) for path in ROOT.glob("tests/**/test_*.py")}
    everywhere = set().union(*found.values())
    named = [(page.name, *match) for page in PAGES for match in re.findall(r"`(?:(test_\w+)::)?(test_\w+)`", page.read_text())]
    assert len(named) > 30
    assert [item for item in named if item[2] not in (found.get(item[1], set()) if item[1] else everywhere | set(found))] == []
