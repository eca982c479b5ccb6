# What a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= $(shell python3.11 --version >/dev/null 2>&1 && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export NO_MKDOCS_2_WARNING := true

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long check audit soak format coverage bench benchmark docs screenshots stack clean distclean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); \
	  sys.exit(0 if ok else f"safegen needs Python 3.11 to 3.13, found {sys.version.split()[0]}; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

install: $(INSTALLED)  ## Make the virtual environment from the lock (once; about 3 GB)

demo: $(INSTALLED)  ## Retrain, evaluate, gate and promote the miniature, from raw images to a release
	$(BIN)/safegen retrain --config configs/miniature.toml

test: $(INSTALLED)  ## Run the tests, but for the whole jobs of `make test-long`
	$(BIN)/python -m pytest -q -m "not long"

test-long: $(INSTALLED)  ## Whole jobs: schedules, topology, kills, every documented command, the wheel, the UIs
	$(BIN)/python -m pytest -q -m long

check: $(INSTALLED)  ## Formatting, lint, layers and types, as CI runs them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

audit: $(INSTALLED)  ## Every dependency is pinned, and installed as pinned
	$(BIN)/python .ci/audit.py

soak: $(INSTALLED)  ## Fault and security tests at length: kills at all points, 5,000 damaged documents a parser
	SAFEGEN_KILL_EVERY=1 SAFEGEN_FUZZ_EXAMPLES=5000 $(BIN)/python -m pytest -q tests/faults tests/security --timeout=0

format: $(INSTALLED)  ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(INSTALLED)  ## Run the tests and list the lines they do not reach
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage report --show-missing --skip-covered

# One module of benchmarks/ each.
BENCHMARKS := memory_edit edit_sd nudenet sample evaluate_share ingest

bench: $(INSTALLED)  ## Measure every benchmark again and rewrite benchmarks/RESULTS.md
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done

docs: $(INSTALLED)  ## Write the documentation site to build/site; fails on any dead link
	$(BIN)/mkdocs build --quiet

screenshots: $(INSTALLED)  ## Make the pictures of docs/images/screens again (needs chromium; runs the demo first)
	page=$$($(BIN)/safegen retrain --config configs/miniature.toml --json | tail -n 1 \
	  | $(BIN)/python -c 'import json; print(json.loads(input())["where"]["page"])') && \
	SAFEGEN_REQUIRE_BROWSER=1 SAFEGEN_SCREENSHOTS=docs/images/screens SAFEGEN_REPORT_PAGE=$$page \
	  $(BIN)/python -m pytest -q tests/browser

benchmark: $(INSTALLED)  ## Every defence, suite and attack on the miniature; rewrites docs/benchmark.md
	$(BIN)/safegen benchmark --config configs/benchmark-miniature.toml

stack: $(INSTALLED)  ## Start the local object store, MLflow and Prefect, and leave them up
	$(BIN)/safegen stack up

clean:  ## Remove the demo's state (releases among it) and caches
	@if [ -x $(BIN)/safegen ] && [ -d .safegen ]; then $(BIN)/safegen stack down || true; fi
	rm -rf .safegen dist build .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find safegen flows tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## The same, and the virtual environment
	rm -rf $(VENV)
