# Two commands do everything on a fresh machine: `make bench` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: bench test lint style types tests servers clean

bench: $(VENV)/.installed
	$(BIN)/locust -f locustfiles/mixed.py --headless

# mypy runs in parallel with the tests. Its output comes last, so that it is not overlooked.
test: style
	@$(MAKE) --no-print-directory types > $(VENV)/types.log 2>&1 & types=$$!; \
	$(MAKE) --no-print-directory tests; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.log; exit $$((tests || types))

lint: style types

style: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python lint/prose.py
	$(BIN)/python lint/module_size.py

types: $(VENV)/.installed-test
	$(BIN)/mypy

# Timed runs can disturb each other. At most two failed tests are tried once more, alone, and listed at the end if
# they pass then.
tests: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 4 --dist worksteal || $(BIN)/python -m pytest --second-try

# Older versions of pip, as shipped with Python, can take three times as long to resolve.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("bltybench needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ". Choose another: make bench PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade pip || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# Compile modules when they are imported, not on installation: most of them never are.
unexport PYTHONDONTWRITEBYTECODE
$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test]'
	touch $(VENV)/.installed $@

# Tests run an inference engine, gateways, and LiteLLM. They have their own environment and versions, so that ours stay as
# constraints.txt has them. The list is complete, so there is nothing to resolve.
SERVERS := tests/interop/servers
servers: $(SERVERS)/.venv/.installed

$(SERVERS)/.venv/.installed: $(SERVERS)/requirements.txt
	$(PYTHON) -m venv $(SERVERS)/.venv
	env -u PIP_CONSTRAINT $(SERVERS)/.venv/bin/python -m pip install --quiet --no-compile --no-deps -r $(SERVERS)/requirements.txt
	touch $@

clean:
	rm -rf $(SERVERS)/.venv
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
