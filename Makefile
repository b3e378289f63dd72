# Every target sets up by itself what it needs: system packages, virtual environment, control plane binaries.
# Needs nothing but make and Python 3.11 or newer, and root or sudo where a system package is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The interpreter behind any virtual environment that happens to be active.
PYTHON := $(shell python3 -c 'import sys; print(sys._base_executable)')
VENV := .venv
BIN := $(VENV)/bin
# The name of this stamp holds interpreter and place, so that an environment made for others is made anew.
VENV_STAMP := $(VENV)/.made-$(shell printf '%s' "$(CURDIR) $$($(PYTHON) -VV)" | cksum | cut -d ' ' -f 1)
DEV_STAMP := $(VENV)/.installed

PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate $(UV_FLAGS)

PYTEST_ARGS ?=
UV_FLAGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: dev
dev: $(DEV_STAMP) ## Set up for development: system packages and .venv

.PHONY: binaries
binaries: $(DEV_STAMP) ## Build the control plane and helm, once (some ten minutes on two cores)
	$(BIN)/python -m testbed.binaries

.PHONY: kryoptic
kryoptic: $(DEV_STAMP) ## Build the second software token, once (a minute; needs Rust)
	@.ci/system-packages hsm
	$(BIN)/python -m testbed.kryoptic

.PHONY: lint
lint: $(DEV_STAMP) ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p strongroom -p testbed
	$(BIN)/lint-imports

.PHONY: format
format: $(DEV_STAMP) ## Format the source
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: test
test: binaries ## Run all tests, those on the real control plane included (PYTEST_ARGS=...)
	$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: $(DEV_STAMP) ## Run the tests that need neither control plane nor token
	$(BIN)/pytest -m "not cluster and not hsm" $(PYTEST_ARGS)

.PHONY: test-hsm
test-hsm: kryoptic ## Run the conformance suite over every software token
	$(BIN)/pytest tests/hsm/conformance --tokens=softhsm,kryoptic,nss $(PYTEST_ARGS)

.PHONY: test-ckr
test-ckr: $(DEV_STAMP) ## Inject every return code at every PKCS#11 function, one at a time
	$(BIN)/pytest tests/hsm -m matrix $(PYTEST_ARGS)

.PHONY: test-hang
test-hang: binaries ## Let every token hang for five minutes under a running operator
	$(BIN)/pytest tests/operator -m endurance $(PYTEST_ARGS)

.PHONY: stress-hsm
stress-hsm: kryoptic ## A minute of mixed work on 16 sessions, on two tokens; prints figures
	$(BIN)/python -m testbed.stress --token=softhsm
	$(BIN)/python -m testbed.stress --token=kryoptic

.PHONY: soak-hsm
soak-hsm: kryoptic ## 200,000 operations in flat memory, on two tokens; prints figures
	$(BIN)/python -m testbed.soak --token=softhsm
	$(BIN)/python -m testbed.soak --token=kryoptic

.PHONY: recovery
recovery: kryoptic ## Measure how soon a token that failed is used again
	$(BIN)/python -m testbed.recovery --token=softhsm
	$(BIN)/python -m testbed.recovery --token=kryoptic

.PHONY: demo
demo: binaries ## Show the main job, step by step, on a real control plane (KEEP=1 leaves it running)
	KEEP=$(KEEP) $(BIN)/python -m testbed.demo

.PHONY: bench
bench: binaries ## Measure speed and calls of the operator, then of the HSM layer; prints JSON
	$(BIN)/python -m testbed.bench
	$(BIN)/python -m testbed.benchhsm

.PHONY: chart
chart: binaries ## Check the chart: helm lint, rendering, a dry run on the real API server
	$(BIN)/pytest tests/chart $(PYTEST_ARGS)

.PHONY: lock
lock: $(DEV_STAMP) ## Write requirements/*.txt from pyproject.toml (UV_FLAGS=--upgrade for newer versions)
	$(PIP) install --quiet --require-hashes -r requirements/uv.txt
	$(COMPILE) pyproject.toml --extra operator --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra operator -o requirements/operator.txt
	$(COMPILE) --group pyproject.toml:go -o requirements/go.txt

.PHONY: clean
clean: ## Remove what was made in this tree (binaries stay in the cache)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Looked at every time, which takes milliseconds, and installed only when missing.
.PHONY: system-packages
system-packages:
	@.ci/system-packages

$(VENV_STAMP): | system-packages
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $@

$(DEV_STAMP): $(VENV_STAMP) requirements/dev.txt pyproject.toml
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	touch $@
