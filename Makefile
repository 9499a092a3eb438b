# `make help` lists what there is. Everything runs in .venv, which `make setup` makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VENDOR := src/microgpt/lab/static/vendor

.DEFAULT_GOAL := help
.PHONY: help setup train test validate evaluate export pipeline chat-model serve lab ui \
	tracking-server reference torture audit bench bench-more bench-smoke \
	clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# npm runs no script of any package; the server and the wheel take the copies, which git ignores
$(VENDOR)/.installed: package-lock.json
	@if command -v npm >/dev/null && npm ci --ignore-scripts --no-audit --no-fund --silent; then \
	  mkdir -p $(VENDOR) && cd node_modules && \
	  cp htm/preact/standalone.module.js ../$(VENDOR)/preact.js && cp htm/preact/index.d.ts ../$(VENDOR)/preact.d.ts && \
	  cp uplot/dist/uPlot.esm.js ../$(VENDOR)/uplot.js && cp uplot/dist/uPlot.d.ts ../$(VENDOR)/uplot.d.ts && \
	  cp uplot/dist/uPlot.min.css ../$(VENDOR)/uplot.css && touch ../$@; \
	else echo "microgpt lab answers scripts but has no page: it needs npm (Node.js) and its registry at make setup"; fi

setup: $(STAMP) $(VENDOR)/.installed ## make .venv and install everything into it

train: setup ## train on the embedded data: the main job
	$(BIN)/python -m microgpt.train

test: setup ## run all tests, the linter and the type checker
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright -p pyproject.toml
	[ ! -x node_modules/.bin/tsc ] || node_modules/.bin/tsc -p jsconfig.json
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 15

validate: setup ## check the embedded data and report on it
	$(BIN)/python -m microgpt.validate

evaluate: setup ## score the latest run
	$(BIN)/python -m microgpt.evaluate run=latest

export: setup ## export the latest run as safetensors
	$(BIN)/python -m microgpt.export run=latest

pipeline: setup ## validate, train, evaluate and export the embedded names
	$(BIN)/python -m microgpt.pipeline recipe=names

chat-model: setup ## train a small chat model and make it the default of `microgpt chat`
	$(BIN)/python -m microgpt.train experiment=chat
	$(BIN)/python -m microgpt.export run=latest checkpoint=latest output=$(HOME)/.config/microgpt/default-chat-model
	@echo "next: $(BIN)/microgpt chat"

serve: setup ## serve the latest model on 127.0.0.1:8080: a chat page, OpenAI's API, metrics
	$(BIN)/microgpt serve

lab: setup ## open the browser lab: watch a GPT learn, and look inside
	$(BIN)/microgpt lab

ui: setup ## open the MLflow UI on 127.0.0.1:5000
	$(BIN)/microgpt ui

tracking-server: setup ## MLflow for a team on PostgreSQL, on 127.0.0.1:5000 (MLFLOW_BACKEND_STORE_URI names a database)
	$(BIN)/microgpt tracking-server

reference: setup ## train the scalar reference on the embedded names
	$(BIN)/python -m microgpt.reference --stop-after 200

torture: setup ## the long versions of the fault tests: 200 kills, 10,000 mutated files (half an hour)
	MICROGPT_TORTURE=1 $(BIN)/python -m pytest tests/faults --durations 15

audit: setup ## look for known holes in the installed packages (needs a network)
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --skip-editable

bench: setup ## measure training against its goals and write benchmarks/RESULTS.md (about 30 minutes, on a quiet machine)
	$(BIN)/python benchmarks/run_all.py

bench-more: setup ## measure the rest: inference, tokenizing, tracking, the recipe (hours)
	$(BIN)/python benchmarks/run_all.py --more

bench-smoke: setup ## run every benchmark script once at the smallest size, to keep them alive
	$(BIN)/python benchmarks/run_all.py --smoke

clean: ## remove caches of tools (never runs)
	rm -rf .ruff_cache .pytest_cache dist build src/*.egg-info
