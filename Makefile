# Every target creates the environment it needs. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
SCALE ?= cpu
BIN := $(VENV)/bin
# The launcher's defaults, spelled out so that it does not warn about them.
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.DEFAULT_GOAL := help
.PHONY: help install pretrain test test-all test-fast faults reproduce quality format docs build clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## Create .venv with the package and its development tools

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("predrec needs Python 3.11 or newer: make PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

pretrain: install  ## Pre-train a small encoder on Python's documentation (ARGS="--max_steps 50" to change things)
	$(LAUNCH) scripts/pretrain.py recipes/quickstart.yaml $(ARGS)

test: install  ## Run the test suite, offline, as CI does
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto -m "not exhaustive" $(ARGS)

test-all: install  ## Run it with the variants that CI leaves out
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto $(ARGS)

test-fast: install  ## Run the tests that take little time
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" $(ARGS)

faults: install  ## Kill, fill, break and damage real runs, 140 times; writes results/faults.json
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --output results/faults.json $(ARGS)

reproduce: install  ## Make the missing runs of results/SCALE, and its report (SCALE=cpu DATA=DIR GLUE=DIR)
	@test -n "$(DATA)" || { echo "DATA is missing: make reproduce SCALE=$(SCALE) DATA=DIR GLUE=DIR, where DATA has train-*.parquet and validation.parquet"; exit 2; }
	@test -n "$(GLUE)" || ! grep -q "^probe:" results/$(SCALE)/experiment.yaml || { echo "GLUE is missing: make reproduce SCALE=$(SCALE) DATA=$(DATA) GLUE=DIR, where GLUE has <task>/<split>.parquet"; exit 2; }
	$(BIN)/python scripts/reproduce.py results/$(SCALE)/experiment.yaml --data "$(DATA)" $(if $(GLUE),--glue "$(GLUE)") $(if $(TOKENIZER),--tokenizer_name "$(TOKENIZER)") $(ARGS)

quality: install  ## Check lint and format, as CI does
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html"

build: install  ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## Remove build products, keep .venv and outputs
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
