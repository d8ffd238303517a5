# demo, test and check need nothing but Python 3.11 or newer: the first call makes .venv and installs what it needs.

# The first of these that is new enough; `make PYTHON=/path/to/python demo` takes another.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11 python; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$candidate" && break; done)
BIN := .venv/bin
# Every installation takes the tested versions, the build environment of our own wheel included.
INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install
TESTS ?= tests
WORKERS ?= 2

.PHONY: torture bench-live demo test test-fast coverage test-install test-lowest test-lightning test-transformers check docs replay bench-logging bench-store bench-metamodel clean

demo: .venv/installed-bench
	$(BIN)/python -m studies.demo.run

# One thread per test process: the fits are tiny, and two processes with two threads each would fight over two cores.
# A file stays with one process, which shares its fixtures.
test: export OMP_NUM_THREADS = 1
test: .venv/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

# What takes more than five seconds is left out.
test-fast: export OMP_NUM_THREADS = 1
test-fast: .venv/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(TESTS)

# Lines that the tests run, with branches; those of processes that the tests start are not seen.
coverage: export OMP_NUM_THREADS = 1
coverage: .venv/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered $(TESTS)

# The wheel in fresh environments: without extras, with one host, with the other. Some minutes; prints the sizes of docs/install.md.
test-install: .venv/installed-dev
	$(BIN)/python -m pytest -s tests/install/installations.py

# The lowest version of every dependency, in an environment of its own: 6 GB, since old releases of torch bring CUDA.
# Optuna's own suite for samplers, which tests/metamodel/test_sampler.py runs, came with a later release.
LOWEST_TESTS ?= tests/store tests/metamodel tests/lightning_metahp tests/hf_callbacks tests/test_doctests.py --ignore tests/metamodel/test_sampler.py
test-lowest: export OMP_NUM_THREADS = 1
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" $(LOWEST_TESTS)

.venv-lowest/installed: pyproject.toml constraints.txt tests/install/lowest.py
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) tests/install/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --disable-pip-version-check -c .venv-lowest/lowest.txt \
		-e ".[lightning,hf,report,import,bench]" pytest pytest-xdist hypothesis gpytorch
	touch $@

# Lightning in another version of the range that pyproject.toml allows, under both of its package names.
LIGHTNING ?= 2.5.0.post0
test-lightning: export OMP_NUM_THREADS = 1
test-lightning: .venv/installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps lightning==$(LIGHTNING) pytorch-lightning==$(LIGHTNING)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/lightning_metahp
	rm .venv/installed-dev

# transformers in another version of its range, with what it needs: the Hub's client and the tokenizers follow it.
TRANSFORMERS ?= 5.0.0
ACCELERATE ?= 1.3.0
test-transformers: export OMP_NUM_THREADS = 1
test-transformers: .venv/installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check transformers==$(TRANSFORMERS) accelerate==$(ACCELERATE)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/hf_callbacks tests/conformance
	rm .venv/installed-dev

check: .venv/installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m docs.generate --check

docs: .venv/installed-dev
	$(BIN)/python -m docs.generate

# Measures for a quarter of an hour and more; `make REPLAY=--no-slow replay` leaves out the slow peers, `--write` only writes the page.
replay: .venv/installed-bench
	$(BIN)/python -m studies.replay.tables $(REPLAY)

# Some hours of two cores; called again, it goes on where it was.
bench-live: export OMP_NUM_THREADS = 1
bench-live: .venv/installed-bench
	mkdir -p build
	$(BIN)/metahp compare-baselines live --suite small-nets --seeds 3 --jobs 2 --history build/small-nets.db
	$(BIN)/python -m studies.small_nets_page --history build/small-nets.db

# Some minutes each, most of them MLflow's; `make BENCH=--lenient bench-store` writes the page whatever comes out.
bench-logging: export OMP_NUM_THREADS = 1
bench-logging: .venv/installed-dev
	$(BIN)/python -m benchmarks.bench_logging --write $(BENCH)

bench-store: .venv/installed-bench
	$(BIN)/python -m benchmarks.bench_store --write $(BENCH)

# What learning and advice cost, how often advice is right, and the sampler beside Optuna's: a quarter of an hour.
bench-metamodel: export OMP_NUM_THREADS = 1
bench-metamodel: .venv/installed-bench
	$(BIN)/python -m benchmarks.bench_metamodel --write
	$(BIN)/python -m benchmarks.bench_advice --write
	$(BIN)/python -m benchmarks.bench_sampler --write

# Kills, fills, locks and damages histories for a quarter of an hour, and writes docs/robustness.md; `make TORTURE=--quick torture` only prints.
torture: export OMP_NUM_THREADS = 1
torture: TORTURE ?= --write
torture: .venv/installed-dev
	$(BIN)/python -m torture $(TORTURE)

clean:
	rm -rf .venv .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/created:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, but none was found. Install it, or call: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	touch $@

.venv/installed-dev: .venv/created pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	touch .venv/installed-bench $@

.venv/installed-bench: .venv/created pyproject.toml constraints.txt
	$(INSTALL) -e ".[bench]"
	touch $@
