# Blockyard. `make run` shows the main job on a real image, `make test` runs everything that can run here.
PYTHON ?= python3
# Test processes; `make test WORKERS=0 ARGS=tests/graph` runs one folder in one process.
WORKERS ?= auto
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test check protos docs bench crash chaos fuzz clean

help: ## Print this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Blockyard needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

run: $(STAMP) ## Mirror, back up and stream a real image while it is written (IMAGE=path for your own).
	$(BIN)/python -m tests.e2e.firstlight $(if $(IMAGE),--image '$(IMAGE)')

test: $(STAMP) ## Run every test that can run here; says what is skipped for lack of a peer.
	$(BIN)/python -m pytest -ra -n $(WORKERS) $(ARGS)

check: $(STAMP) ## Format, lint, types, layers, protos.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint

protos: $(STAMP) ## Generate protos/python from protos/blockyard.
	$(BIN)/python protos/generate.py

docs: $(STAMP) ## Print the pages that are made from the code (errors, drivers, job states, limits).
	$(BIN)/python -m docs.generate

bench: $(STAMP) ## Measure beside the peers (CASE=name for one); writes bench.json.
	$(BIN)/python -m tests.bench $(if $(CASE),--case '$(CASE)')

crash: $(STAMP) ## Replay crash states at length (CI replays a slice).
	BLOCKYARD_CRASH_STATES=500000 $(BIN)/python -m pytest -ra -m crash

chaos: $(STAMP) ## Jobs stopped at every durable step, killed, cut and stalled: the whole matrix (an hour).
	BLOCKYARD_CHAOS=1 BLOCKYARD_CHAOS_STALL=10 $(BIN)/python -m pytest -ra -n $(WORKERS) tests/chaos

fuzz: $(STAMP) ## Fuzz the codecs and the request path at length.
	BLOCKYARD_FUZZ_EXAMPLES=20000 $(BIN)/python -m pytest -ra -m fuzz

clean: ## Remove everything that was made.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis bench.json dist
