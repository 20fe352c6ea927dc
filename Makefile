# `make run` and `make test` each do all that they need, in a fresh checkout too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
SOURCES := $(shell find csrc src/gofer -not -path '*/__pycache__*') meson.build meson.options

export PYTHON

.PHONY: help run test lint test-all bench clean

help:
	@sed -n 's/:[^#]*## */  /p' Makefile

run: $(VENV)/gofer     ## builds gofer and runs an example: digests of the whole standard library
	$(BIN)/python examples/digest.py --check

test: $(VENV)/gofer $(VENV)/tools     ## builds gofer and runs its tests
	$(BIN)/python -m pytest -q

lint: $(VENV)/tools     ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

test-all: test     ## the tests on every interpreter, hostile, with sanitizers; takes hours
	scripts/test-on 3.11 -q
	scripts/test-on 3.12 -q
	scripts/test-on 3.13 -q
	scripts/test-on 3.14 -q
	scripts/test-on 3.15 -q
	scripts/test-on 3.13t --workers 1 -q
	scripts/test-on 3.13t --workers 2 -q
	scripts/test-on 3.13t --workers 4 -q
	scripts/test-on 3.11-debug -q
	scripts/test-on 3.13t-debug -q
	scripts/test-on 3.11 --hostile -q
	scripts/test-on 3.13 --hostile -q
	scripts/test-on 3.15 --hostile -q
	scripts/test-on 3.13t --hostile --workers 2 -q
	scripts/test-on 3.13 --sanitize undefined -q
	scripts/test-on 3.13t-tsan --workers 2 -q

bench:     ## gofer, its peers and Go side by side; writes bench/RESULTS.md
	$(PYTHON) bench/run.py

clean:     ## removes all that was made here
	rm -rf $(VENV) build dist

# --- the environment: what builds gofer, gofer itself, what tests and checks it -------------------

$(VENV)/made: pyproject.toml scripts/requirements
	python=$$(scripts/interpreters python3) && "$${python#* }" -m venv $(VENV)
	$(BIN)/python scripts/requirements build >$(VENV)/build.txt
	$(PIP) --upgrade pip --requirement $(VENV)/build.txt
	touch $@

$(VENV)/tools: $(VENV)/made
	$(BIN)/python scripts/requirements test lint >$(VENV)/tools.txt
	$(PIP) --requirement $(VENV)/tools.txt
	touch $@

$(VENV)/gofer: $(VENV)/made $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-build-isolation --no-deps --force-reinstall \
		-C build-dir=build/make .
	touch $@
