# Needs python3.11, make and git; everything else is installed into .venv with pinned hashes.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STAMP  := $(VENV)/.installed
QUICK  := not slow and not chromium and not postgres and not java
FROM   ?= 2012-12-31
TO     ?= 2013-12-21
LOCK    = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-annotate --no-header

# Threads of BLAS and OpenMP change the last digits of a fitted model, and telemetry has no place in a build.
export OMP_NUM_THREADS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# The programs of the environment call each other by name (mlops starts dagster).
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install run ui check test bench lock clean

help: ## list these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(STAMP) ## create .venv with everything pinned (instant when nothing changed)

$(STAMP): requirements.lock requirements-build.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-build-isolation -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

run: install ## a year of flight delays: prepare the data, replay every day (FROM=, TO=)
	$(BIN)/python -m mlops_assets.examples.flight_delays.prepare
	$(BIN)/mlops replay flight_delays --from $(FROM) --to $(TO)

ui: install ## open the Dagster and MLflow pages over what was replayed
	$(BIN)/mlops ui

check: install ## format, lint, types, house rules, quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -m "$(QUICK)" -n 2

# -v takes back the -q of pyproject.toml: CI reads the full closing line.
test: install ## the whole suite, as CI runs it
	$(BIN)/pytest -v -n 2

bench: install ## measure the figures the docs quote
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

lock: ## resolve the newest allowed versions into the two lock files
	test -x $(BIN)/uv || { test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --require-hashes -r requirements-build.lock; }
	$(LOCK) pyproject.toml --extra dev --extra postgres --output-file requirements.lock
	$(LOCK) requirements-build.in --constraint requirements.lock --output-file requirements-build.lock

clean: ## remove .venv, caches and builds; keeps .mlops, which holds history
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.mlops/*' -prune -exec rm -rf {} +
