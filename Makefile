# farm: two commands on a fresh machine are `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What plain TensorRT's branch is type-checked against.
STUBS := tensorrt-stubs==10.13.0.35.1
# The tests run on as many processes as there are cores; JOBS=0 runs them in one.
JOBS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types imports unit bench chaos fleet fleet-env fleet-down clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time takes a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.13,<2.14"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[build,fleet,search,server,dev]"
	@# In a folder of their own: among the packages they would pass for TensorRT.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/stubs "$(STUBS)"
	@touch $@

install: $(STAMP) ## Make .venv and install everything that building and testing need

demo: $(STAMP) ## Build real TensorRT-RTX engines for three GPU generations, then ask again
	@$(BIN)/farm demo

test: lint types imports unit ## Lint, type-check, hold the architecture, run the tests

lint: $(STAMP) ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict on the package
	@$(BIN)/mypy

imports: $(STAMP) ## import-linter: imports point downward only
	@$(BIN)/lint-imports

unit: $(STAMP) ## The tests (a short seed of each long one)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not slow"

test-all: $(STAMP) ## The tests, the long ones included
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

bench: $(STAMP) ## Ratios against peers and limits, in one run; writes bench.json
	@$(BIN)/python -m tests.bench

chaos: $(STAMP) ## 500 builds under every fault at once, with 20 seeds (about an hour); CHAOS_ARGS="--seeds 1" for one
	@$(BIN)/python -m tests.chaos --seeds 20 $(CHAOS_ARGS)

fleet: $(STAMP) ## A fleet on this machine, until Ctrl-C: S3 server, beat, two workers (docs/fleet.md)
	@exec $(BIN)/python deploy/local_fleet.py up $(FLEET_ARGS)

fleet-env: $(STAMP) ## The exports with which a shell talks to it (docs/fleet.md)
	@$(BIN)/python deploy/local_fleet.py env

fleet-down: $(STAMP) ## Stop it, and remove its database, its messages and .fleet
	@$(BIN)/python deploy/local_fleet.py down

clean: ## Remove what was made
	rm -rf $(VENV) bench.json demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
