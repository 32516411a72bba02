# Everything happens in .venv, which the first target makes. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests fork often and hold large contents: with huge pages, where the C library has them to give, a
# fork takes a tenth of the time.
# They wait as often as they work: one process more than there are cores.
WORKERS := $(shell cores=$$(nproc 2> /dev/null || echo 2); echo $$((cores < 4 ? cores + 1 : 4)))
PYTEST := GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m pytest

# What needs torch has an environment of its own, since that is several gigabytes large.
TORCH := .venv-torch

.PHONY: demo test test-torch check lint types docs registries registries-check bench soak clean

# One stamp per dependency group, so that each target installs no more than it needs.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable . --group $*
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/python docs/demo.py

test: $(VENV)/.test
	$(PYTEST) -m 'not soak' --numprocesses $(WORKERS)

$(TORCH)/.test-torch: pyproject.toml
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(TORCH)/bin/python -m pip install --quiet --editable . --group test-torch
	@touch $@

test-torch: $(TORCH)/.test-torch
	$(PYTEST:$(BIN)/%=$(TORCH)/bin/%) tests/test_torch*.py --numprocesses $(WORKERS) --timeout 600

# DSCACHE_SOAK is the length in seconds of the soak of many processes, by default 600.
soak: $(VENV)/.test test-torch
	$(PYTEST) -m soak --timeout 1800

check: lint types docs registries-check

# The bundled registries are what registries/curation gives, and break no rule.
registries-check: $(VENV)/.check
	$(BIN)/python registries/curate.py --check

registries: $(VENV)/.check
	$(BIN)/python registries/curate.py

lint: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.check $(VENV)/.test
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# What is still missing after this has a row in the tables that says so.
bench: $(VENV)/.bench
	@missing=; for pair in aria2c:aria2 axel:axel curl:curl openssl:openssl rclone:rclone unzip:unzip wget:wget \
		xz:xz-utils zstd:zstd; do \
		command -v $${pair%:*} > /dev/null || missing="$$missing $${pair#*:}"; \
	done; \
	if [ -n "$$missing" ]; then \
		install="apt-get install --yes --no-install-recommends$$missing"; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
			apt-get update --quiet --quiet; $$install || true; \
		else \
			echo "missing programs; as root on Debian: $$install"; \
		fi; \
	fi
	$(BIN)/python -u -m tests.bench

clean:
	rm -rf $(VENV) $(TORCH) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
