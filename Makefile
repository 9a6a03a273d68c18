# make demo     everything on this machine, a real map over HTTP with live progress
# make test     the tests, six files at once: they wait more than they compute
# make test-all the slow ones too: frozen hosts, long items, a short soak
# make check    format, lint and types
# make soak     maps and jobs under faults, every item accounted for (SECONDS=600, SEED=, ARGS=)
# make bench    jetmap beside ProcessPoolExecutor (about ten minutes)
#
# All run in .venv, which is made at the first use: with jetmap alone for the demo, and what
# developers need beside it for the others. PYTHON chooses the interpreter (3.11 or newer):
# make test PYTHON=python3.13

PYTHON ?= python3
# The tests start hundreds of processes: they need not compile everything each time.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev

SECONDS := 600
SEED :=

.PHONY: demo test test-all check format soak bench clean

demo: $(READY)
	@$(BIN)/jetmap demo

test: $(DEV)
	$(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: $(DEV)
	$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(DEV)
	@$(BIN)/python -m tests.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(DEV)
	@$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp is written last: a set-up that was cut short is done again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jetmap needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV): $(READY)
	@echo "adding what developers need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
