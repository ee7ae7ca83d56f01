# `make help` lists the targets. Each creates what it needs in .venv; a second run starts at once.
# Variables: PYTHON=python3.12 picks the interpreter, ARGS="-k protonets" reaches pytest or the benchmarks.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NEED := 3.11
FIND_PYTHON = for p in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	if command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null; \
	then echo $$p; break; fi; done

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow browser lint format bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.stamp-run  ## install lite-bench, then train, evaluate and rank small learners on the embedded suite
	$(BIN)/lite-bench quickstart $(ARGS)

test: $(VENV)/.stamp-dev  ## run the test suite (minutes)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-slow: $(VENV)/.stamp-dev  ## run the tests marked slow
	$(BIN)/pytest -m slow $(ARGS)

browser:  ## install Debian's Chromium, which the tests of the HTML page drive; they are skipped without it
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "Install chromium and chromedriver with your system's packages." >&2; exit 1; fi; \
	root=; [ "$$(id -u)" = 0 ] || root=sudo; \
	$$root apt-get update -qq && $$root apt-get install -y -qq --no-install-recommends chromium chromium-driver

lint: $(VENV)/.stamp-dev  ## check style, types and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.stamp-dev  ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.stamp-dev  ## run every benchmarks/bench_*.py in turn
	@for script in benchmarks/bench_*.py; do \
		echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; \
	done

clean:  ## remove the environment, caches and build products; keeps runs
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.stamp-venv:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "lite-bench needs Python $(NEED) or newer and found none; install it, or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "Creating $(VENV) with $$($$python --version)"; \
	if ! $$python -m venv $(VENV); then \
		echo "$$python cannot create environments; on Debian and Ubuntu install the package python3-venv" >&2; \
		exit 1; \
	fi
	@touch $@

$(VENV)/.stamp-run: pyproject.toml | $(VENV)/.stamp-venv
	$(PIP) install --prefer-binary --editable .
	@touch $@

# An environment for development is one for running too.
$(VENV)/.stamp-dev: pyproject.toml | $(VENV)/.stamp-venv
	$(PIP) install --prefer-binary --editable '.[dev]'
	@touch $(VENV)/.stamp-run $@
