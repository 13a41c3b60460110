# Two commands do everything: `make serve` and `make test`. Needs Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
SOURCES := models service training eval tests

.PHONY: serve test check format install dev clean

serve: install  ## start the service on the released model
	$(VENV)/bin/rasid serve

test: dev  ## run the whole suite
	$(VENV)/bin/python -m pytest

check: dev  ## lint, types, and which room may import which
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: dev  ## mend what can be mended
	$(VENV)/bin/ruff check --fix $(SOURCES)
	$(VENV)/bin/ruff format $(SOURCES)

install: $(VENV)/.serve
dev: $(VENV)/.dev

$(VENV)/.serve: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[train,eval,ray,dev]'
	touch $@ $(VENV)/.serve

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
