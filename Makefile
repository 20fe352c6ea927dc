# gofer: `make test` runs what can be run so far.  See CHANGELOG.md for what does not exist yet.
PYTHON ?= python3
VENV := .venv

.PHONY: help test compile clean
help:            ## what can be made
	@grep -E '^[a-z-]+:.*##' Makefile

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet pytest
	touch $@

compile:         ## the finished rooms of the core compile without a warning
	@for f in base.h switch.h pystate.c stack.c g.c timer.c sema.c chan.c select.c netpoll_epoll.c; do \
		echo "cc csrc/$$f" && \
		$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers \
			-isystem "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
			-fsyntax-only -x c csrc/$$f || exit 1; \
	done

test: compile $(VENV)/ready    ## the tests
	PYTHONPATH=src $(VENV)/bin/python -m pytest -q tests/test_architecture.py -p no:cacheprovider -o addopts= -o timeout= \
		-W ignore::pytest.PytestConfigWarning \
		--deselect tests/test_architecture.py::test_import_brings_only_the_library \
		--deselect tests/test_architecture.py::test_only_the_module_init_is_exported   # both need the built core

clean:           ## removes what was built
	rm -rf $(VENV) build dist
