# Two commands do everything on a fresh machine: `make bench` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: bench test lint style types tests clean

bench: $(VENV)/.installed
	$(BIN)/locust -f locustfiles/mixed.py --headless

# Types are checked beside the tests. What is wrong with them is said last, where it is not overlooked.
test: style
	@$(MAKE) --no-print-directory types > $(VENV)/types.log 2>&1 & types=$$!; \
	$(MAKE) --no-print-directory tests; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.log; exit $$((tests || types))

lint: style types

style: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-test
	$(BIN)/mypy

# Runs that are timed get in each other's way: what fails among the others is tried once more alone, and which
# tests passed only then is said at the end.
tests: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 3 --dist worksteal || $(BIN)/python -m pytest --second-try

# Of the versions of pip, those that come with Python may take three times as long to resolve.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# Modules are compiled as they are imported, and then kept so: most of what is installed never is.
unexport PYTHONDONTWRITEBYTECODE
$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
