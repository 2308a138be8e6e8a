# Each target creates the virtual environment .venv if needed and installs what it requires, so that any of them works in
# a fresh clone. PYTHON=... selects the interpreter (3.11 or newer), ARGS=... is passed to pytest.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
PYTHON ?= python3
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check dist docs clean

help:
	@echo "make demo    train three ways on generated images, print a table, draw pictures into demo/ (under 6 minutes)"
	@echo "make test    run the tests, of the slow ones a fixed fifth; one part: make test ARGS=tests/losses"
	@echo "make test-all  run every test"
	@echo "make check   linter, formatter, types, architecture, files for hosting"
	@echo "make dist    build the source archive and the wheel into dist/, and check them"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove .venv, caches and everything built; runs/ stays"

# Installs again when pyproject.toml changes; an incomplete environment is created anew.
$(READY): pyproject.toml
	@set -e; \
	if ! { $(BIN)/python -c '$(NEW_ENOUGH)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
		found=; \
		for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
			if command -v $$python >/dev/null 2>&1 && $$python -c '$(NEW_ENOUGH)'; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "error: fuzzyseg needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1 || true)." \
				"Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
			exit 1; \
		fi; \
		echo "creating $(VENV) with $$($$found --version)"; \
		$$found -m venv --clear $(VENV) || { \
			echo "error: $$found cannot create a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
			exit 1; \
		}; \
	fi; \
	echo "installing fuzzyseg with its extras into $(VENV): a few GB, some minutes ..."; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'; \
	touch $@; \
	echo "installed"

demo: $(READY)
	@rm -rf demo
	$(BIN)/python -m fuzzyseg demo --out demo

# Two processes with one thread each are faster than one with two: the tests use small tensors.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(READY)
	$(PYTEST) --slow sample $(ARGS)

test-all: $(READY)
	$(PYTEST) $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/python -m pytest tests/architecture

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/zensical build --clean --strict

clean:
	rm -rf $(VENV) build dist site demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
