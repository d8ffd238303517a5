"""Import rules and house rules, read from our own sources; laziness, seen in fresh interpreters."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.extras import EXTRA_OF
from store.package_shadow import PACKAGES, packages_below

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {package: set(packages_below(package)) for package in PACKAGES}
_HOST_FRAMEWORKS = {"transformers", "lightning", "pytorch_lightning"}
MUST_NOT_IMPORT = {
    **{package: set() for package in PACKAGES},
    "store": {"torch", "numpy", "pandas", "optuna"} | _HOST_FRAMEWORKS,
    "metamodel": _HOST_FRAMEWORKS,
    "metahp_tuning": _HOST_FRAMEWORKS,
    "lightning_metahp": {"transformers"},
    "hf_callbacks": {"lightning", "pytorch_lightning"},
}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = ("torch", "optuna", "pandas", "numpy", "scipy", "sqlite_utils", "lightning", "transformers", "sklearn", "matplotlib", "pyarrow")
# No line of ours imports these: Optuna's CMA-ES and Lightning's CLI refuse to exist without theirs, and a library in C is opened by itself.
NEEDED_THROUGH_ANOTHER = {"cmaes": "compare_baselines", "jsonargparse": "lightning_metahp", "nvidia-ml-py": "store"}
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "liac-arff": "arff",
    "mlflow-skinny": "mlflow",
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Full dotted names of every import in a file, also those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.module or ""


def imported_roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(path)}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules_after(code: str, cwd: Path | None = None) -> set[str]:
    """Modules that a fresh interpreter has loaded after running the code."""
    script = f"{code}\nimport sys\nsys.stderr.write('LOADED ' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=cwd or ROOT)
    return set(done.stderr.rpartition("LOADED ")[2].split())


def loaded_after(code: str, cwd: Path | None = None) -> set[str]:
    """The packages of those."""
    return {name.partition(".")[0] for name in modules_after(code, cwd)}


def declared_lines() -> list[tuple[str, str, str]]:
    """Group, distribution name and comment of each dependency; the group of what everybody gets is ``core``."""
    found = []
    group = ""
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if opened := re.match(r"([a-z]+) = \[$", line):
            group = opened[1].replace("dependencies", "core")
        elif named := re.match(r' +"([A-Za-z0-9-]+)[^"]*", *(?:# (.+))?$', line):
            found.append((group, named[1], named[2] or ""))
    return [line for line in found if line[0] in GROUPS]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
LINES = [line for line in declared_lines() if line[0] not in {"all", "dev"}]


def import_name(distribution: str) -> str:
    return IMPORT_NAMES.get(distribution, distribution).replace("-", "_")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = imported_roots(path) & {*PACKAGES, "cli", "tests", "docs", "examples"}
    assert ours <= MAY_IMPORT[package] | {package}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_host_frameworks_stay_in_their_rooms(path: Path) -> None:
    found = imported_roots(path)
    if path == ROOT / "store" / "importers" / "optuna_storage.py":
        found -= {"optuna"}  # what Optuna wrote is read through Optuna; that it is loaded only then is a test of its own
    assert not found & MUST_NOT_IMPORT[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_reads_or_writes_pickles(path: Path) -> None:
    assert not imported_roots(path) & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    assert path.stem.lower() not in {"utils", "util", "helpers", "helper", "common", "misc"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_and_classes_stay_small(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{node.name} has {length} lines"
        if isinstance(node, ast.ClassDef):
            methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef) and is_public_method(item)]
            assert len(methods) <= 15, f"{node.name} has {len(methods)} public methods: {methods}"


def is_public_method(node: ast.FunctionDef) -> bool:
    is_property = any(isinstance(item, ast.Name) and item.id == "property" for item in node.decorator_list)
    is_hook = node.name.startswith("on_")  # the hosts decide how many hooks a callback has
    return not (node.name.startswith("_") or is_property or is_hook)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_error_is_swallowed_in_silence(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: except without a class"
            assert not all(isinstance(item, ast.Pass) for item in node.body), f"line {node.lineno}: except ...: pass"


PLUG_INS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] not in {"compare_baselines", "metahp_cli"}]


# The command line and the demo are programs of their own.
@pytest.mark.parametrize("path", PLUG_INS, ids=name_of)
def test_the_host_program_keeps_its_logging(path: Path) -> None:
    called = {ast.unparse(node.func) for node in ast.walk(parse(path)) if isinstance(node, ast.Call)}
    assert not {name for name in called if name.endswith((".addHandler", "logging.basicConfig", ".setLevel"))}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_every_third_party_import_is_declared() -> None:
    known = {import_name(name) for _, name, _ in LINES} | set(PACKAGES) | sys.stdlib_module_names | {"_typeshed"}
    unknown = {name_of(path): sorted(imported_roots(path) - known) for path in SOURCES if imported_roots(path) - known}
    assert not unknown


def test_every_line_of_the_dependencies_was_read() -> None:
    assert {group: sum(line[0] == group for line in declared_lines()) for group in GROUPS} == {name: len(of) for name, of in GROUPS.items()}


@pytest.mark.parametrize(("group", "name", "comment"), LINES, ids=lambda value: value[:20])
def test_each_dependency_is_imported_where_its_comment_says(group: str, name: str, comment: str) -> None:
    rooms = [package for package in PACKAGES if re.search(rf"\b{package}\b", comment)]
    assert rooms, "the comment names no package"
    if name in NEEDED_THROUGH_ANOTHER:
        assert rooms == [NEEDED_THROUGH_ANOTHER[name]]
        return
    for room in rooms:
        assert any(import_name(name) in imported_roots(path) for path in SOURCES if path.is_relative_to(ROOT / room)), room


def test_each_extra_is_named_where_one_of_its_packages_is_missing() -> None:
    brought = {(import_name(name), group) for group, name, _ in LINES if group not in {"core", "gpu"}}
    assert set(EXTRA_OF.items()) <= brought
    assert {name for name, _ in brought} == set(EXTRA_OF)


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("from store import History", HEAVY),
        ("import " + ", ".join(PACKAGES), HEAVY),
        ("from metamodel import TaskDescription", HEAVY),
        ("from metahp_cli.main import app", HEAVY),
        ("from hf_callbacks import MetaHPCallback, autoconfig, apply", ("lightning", "pytorch_lightning")),
    ],
)
def test_an_import_loads_only_what_it_needs(code: str, unwanted: tuple[str, ...]) -> None:
    assert not loaded_after(code) & set(unwanted)


def test_reading_and_writing_a_history_again_loads_nothing_heavy(tmp_path: Path) -> None:
    path = str(tmp_path / "history.db")
    use = f"from store import History\nwith History({path!r}) as h:\n    h.start_run(task='t', hparams={{'lr': 0.1}}).finish()\n"
    loaded_after(use)
    assert not loaded_after(use + f"with History({path!r}) as h: assert len(h.runs()) == 2") & set(HEAVY)


def test_a_start_that_the_starter_history_has_no_say_in_does_not_load_it(tmp_path: Path) -> None:
    path = str(tmp_path / "history.db")
    use = "import os\nos.environ['METAHP_STARTER'] = 'off'\nfrom metamodel import recommend\n"
    ask = f"{use}recommend({path!r}, 't', {{'lr': [0.1, 1.0]}})"
    loaded = modules_after(ask)
    assert "metamodel.recommender" in loaded
    assert "metamodel.starter.starter_prior" not in loaded


@pytest.mark.parametrize("words", [["--help"], ["runs"], ["tasks"], ["show", "RUN"]], ids=" ".join)
def test_everyday_commands_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "history.db")
    make = f"from store import History\nwith History({path!r}) as h:\n    r = h.start_run(task='t'); r.finish(); print(r.id)"
    run_id = subprocess.run([sys.executable, "-c", make], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    given = [run_id if word == "RUN" else word for word in words] + ([] if "--help" in words else ["--history", path])
    code = f"from metahp_cli.main import main\ntry:\n    main({given!r})\nexcept SystemExit as stop:\n    assert not stop.code, stop"
    loaded = loaded_after(code)
    assert not loaded & set(HEAVY)
    # What a look at the history takes is read; the half second that it may take is measured by benchmarks/bench_store.py.
    assert not loaded & (set(PACKAGES) - {"store", "metahp_cli"})


WITHOUT_HISTORY = ["runs", "tasks", "show x", "model", "doctor", "compact", "export FILE", "recommend --task t", "refit", "report"]


@pytest.mark.parametrize("words", [*WITHOUT_HISTORY, "compare-baselines"])
def test_a_command_that_finds_no_history_loads_nothing_heavy(words: str, tmp_path: Path) -> None:
    given = [*words.replace("FILE", str(tmp_path / "x.jsonl")).split(), "--history", str(tmp_path / "none.db")]
    code = f"from metahp_cli.main import main\ntry:\n    main({given!r})\nexcept SystemExit as stop:\n    assert stop.code == 1, stop"
    assert not loaded_after(code) & set(HEAVY)
    assert not list(tmp_path.glob("*.*"))


def test_the_version_loads_nothing_heavy() -> None:
    assert not loaded_after("from metahp_cli.main import main\ntry:\n    main(['--version'])\nexcept SystemExit: print()") & set(HEAVY)
