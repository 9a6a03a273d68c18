# make demo         a real map over HTTP on this machine, with live progress
# make test         the tests, twelve files at once: they wait more than they compute
# make test-all     the slow ones too, and ten times the examples
# make test-matrix  the tests on each Python found here, with the oldest and the newest NATS
# make coverage     the tests with a coverage report (htmlcov/)
# make settings     config/jetmap.toml and the README's table, from the declared settings
# make check        formatting, lint, types (of calls that must fail, and of the docs, too), layers,
#                   the generated client, and the prose
# make format       mend formatting and what lint can mend
# make unasync      the blocking client, from the asynchronous one
# make docs         the documentation site (site/); fails on a broken link
# make soak         maps and jobs under faults, every item accounted for (SECONDS=600, SEED=)
# make bench        jetmap beside ProcessPoolExecutor, and the last release (ten minutes)
# make bench-peers  jetmap beside mpire, joblib, Ray, Dask and Celery, in an environment of its own
# make bench-scale  pools of 1 to 1,000 agents, far hosts, long lists, many open maps, shards
#
# ARGS= passes arguments on. Everything runs in .venv, which is created at the first use: with
# jetmap alone for the demo, and with developer tools for the rest. PYTHON chooses the interpreter
# (3.11 or newer): make test PYTHON=python3.13

PYTHON ?= python3
# The interpreters of `make test-matrix`: those of these names that run here.
PYTHONS ?= python3.11 python3.12 python3.13 python3.14
# The tests start hundreds of processes, which should not compile everything each time.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
DOCS := $(VENV)/.ready-docs
PEERS := .venv-peers
# Processes that are forked after the collection (decision 0600); macOS does not survive such forks.
ifeq ($(shell uname),Linux)
PYTEST := -m pytest --at-once 12
else
PYTEST := -m pytest -n 6 --dist loadfile --no-loadscope-reorder
endif

SECONDS := 600
SEED :=

.PHONY: demo test test-all test-matrix coverage settings check unasync format docs soak bench bench-peers \
	bench-scale clean

demo: $(READY)
	@$(BIN)/jetmap demo

test: $(DEV)
	$(BIN)/python $(PYTEST) $(ARGS)

test-all: $(DEV)
	EXAMPLES=1 $(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

test-matrix:
	@PYTHONS="$(PYTHONS)" scripts/test_matrix $(PYTEST) $(ARGS)

coverage: $(DEV)
	$(BIN)/python $(PYTEST) --cov --cov-report=term --cov-report=html $(ARGS)

settings: $(READY)
	$(BIN)/python -m jetmap.settings.render

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests
	$(BIN)/python scripts/typed_docs.py typing_tests/docs
	$(BIN)/mypy --config-file typing_tests/mypy.ini typing_tests
	@if $(BIN)/pyright --version >/dev/null 2>&1; \
		then $(BIN)/pyright -p typing_tests --pythonpath $(BIN)/python; \
		else echo "pyright, which fetches itself from npm, cannot be had here"; fi
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q -m "" tests/unit/test_english.py
	$(BIN)/python scripts/unasync.py --check

unasync: $(DEV)
	$(BIN)/python scripts/unasync.py

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

soak: $(DEV)
	@$(BIN)/python -m chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(DEV)
	@$(BIN)/python -m bench $(ARGS)

bench-peers: $(PEERS)/.ready
	@$(PEERS)/bin/python -m bench.peers $(ARGS)

bench-scale: $(DEV)
	@$(BIN)/python -m bench.scale $(ARGS)

clean:
	rm -rf $(VENV) .venv-* site htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Stamps are written last, so an interrupted set-up is repeated.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jetmap needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV): $(READY)
	@echo "adding developer tools"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Peers that cannot be had are left out.
$(PEERS)/.ready: pyproject.toml bench/peers/requirements.txt
	@echo "setting up $(PEERS) (once)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@while read peer; do \
		$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "$$peer" \
			|| echo "$$peer cannot be had here"; \
	done < bench/peers/requirements.txt
	@touch $@

$(DOCS): $(READY)
	@echo "adding the documentation tools"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@
