# Needs Python 3.11 or newer, pip and make. Everything else lands in .venv, from the locks in
# requirements/, checked against their hashes.

PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev

# The outer pip installs into .venv, so that Debian's Python without its venv package will do.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check
INSTALL := $(PIP) install --quiet --require-hashes --only-binary :all:
LOCK := ../$(BIN)/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help env dev demo test check lint fuzz lab bench-data bench-tracker bench-swarm bench-cap lock clean
.NOTPARALLEL:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: env ## publish a film and watch it in four viewers (ARGS=--keep leaves it running)
	@$(BIN)/penstock demo $(ARGS)

test: dev ## run all tests (ARGS goes to pytest)
	@echo "-- tests"
	@$(BIN)/python -m pytest $(ARGS)

check: lint test ## everything that must hold before a change lands

lint: dev ## style, types and the architecture's contracts
	@echo "-- ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo "-- mypy"
	@$(BIN)/mypy
	@echo "-- import contracts"
	@$(BIN)/lint-imports --no-logo

fuzz: dev ## engines over a hostile virtual network for five minutes (ARGS="--seconds 3600", --seed N)
	@$(BIN)/python -m tests.courses $(ARGS)

lab: dev ## hosts behind real lines, measured from outside (ARGS="--only NAME", --quick; needs root)
	@$(BIN)/python -m tests.lab $(ARGS)

bench-cap: dev ## upload caps seen from outside, beside other clients (ARGS=--quick; needs root)
	@$(BIN)/python -m benchmarks.cap $(ARGS)

bench-data: dev ## measure the data plane beside others (ARGS=--quick: two minutes)
	@$(BIN)/python -m benchmarks.data $(ARGS)

bench-swarm: dev ## swarms in virtual time beside the fluid bound and pure edge (ARGS=--quick)
	@$(BIN)/python -m benchmarks.swarm $(ARGS)

bench-tracker: dev ## measure the tracker: records, choices, and whether they are good (ARGS="--only NAME")
	@$(BIN)/python -m benchmarks.tracker $(ARGS)

env: $(RUN_STAMP) ## make .venv with what the programs need

dev: $(RUN_STAMP) $(DEV_STAMP) ## add what tests and checks need

lock: $(BIN)/python ## write requirements/*.txt anew from requirements/*.in (ARGS=--upgrade)
	@echo "-- locks"
	@$(INSTALL) -r requirements/lock.txt
	@cd requirements && $(LOCK) $(ARGS) -o run.txt run.in
	@cd requirements && $(LOCK) $(ARGS) -o dev.txt dev.in
	@cd requirements && $(LOCK) $(ARGS) -o lock.txt lock.in

clean: ## remove .venv and caches
	rm -rf $(VENV) build dist *.egg-info .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "penstock needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null || { \
		echo "penstock needs pip: install python3-pip, or run $(PYTHON) -m ensurepip" >&2; exit 1; }
	@echo "-- environment in $(VENV)"
	@$(PYTHON) -m venv --without-pip $(VENV)

$(RUN_STAMP): requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "-- packages of requirements/run.txt"
	@$(INSTALL) -r requirements/run.txt
	@$(PIP) install --quiet --no-build-isolation --no-deps --no-index -e .
	@touch $@

$(DEV_STAMP): requirements/dev.txt | $(BIN)/python
	@echo "-- packages of requirements/dev.txt"
	@$(INSTALL) -r requirements/dev.txt
	@touch $@
