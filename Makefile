# Each target makes the virtual environment .venv if there is none and installs all it needs: in a fresh clone on a bare
# machine either command alone works. PYTHON=... chooses the interpreter (3.11 or newer), ARGS=... goes to pytest.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
PYTHON ?= python3
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test check clean

help:
	@echo "make demo    train three ways on generated images, print a table, draw pictures into demo/ (under 6 minutes)"
	@echo "make test    run the whole test suite; one part: make test ARGS=tests/losses"
	@echo "make check   linter, formatter, types, architecture"
	@echo "make clean   remove .venv, caches and demo/; runs/ is yours and stays"

# A change of pyproject.toml installs again; an environment that was cut short is made anew.
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
		echo "making $(VENV) with $$($$found --version)"; \
		$$found -m venv --clear $(VENV) || { \
			echo "error: $$found cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
			exit 1; \
		}; \
	fi; \
	echo "installing fuzzyseg and all it needs into $(VENV): a few GB, some minutes ..."; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	touch $@; \
	echo "installed"

demo: $(READY)
	@rm -rf demo
	$(BIN)/python -m fuzzyseg demo --out demo

# Two processes with a thread each are faster than one with two: the tensors of the tests are small.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/architecture

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
