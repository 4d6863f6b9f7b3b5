# Every target makes .venv itself; needs Python >= 3.11 with venv, and make.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
RUN := $(VENV)/bin/python

# Where Python may not keep what it compiled, each of hundreds of processes compiles its packages again.
export PYTHONDONTWRITEBYTECODE =

# Each of pytest's two processes gets half of the cores: the runtimes and torch start a thread for every core otherwise.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
THREADS := $(shell n=$$(( $(CORES) / 2 )); [ $$n -ge 1 ] && echo $$n || echo 1)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(STAMP) ## the main job on the built-in model and data, under five minutes
	$(VENV)/bin/edgedet demo

test: export OMP_NUM_THREADS ?= $(THREADS)
test: $(STAMP) ## the tests; EDGEDET_TEST_DATA names the folder with real data sets
	$(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not slow and not arm64 and not avx2"

test-slow: export OMP_NUM_THREADS ?= $(THREADS)
test-slow: $(STAMP) ## the tests that take minutes
	$(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "slow or arm64 or avx2"

check: $(STAMP) ## format, lint, types, tests
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(MAKE) test

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) build dist demo runs bundles .mypy_cache .pytest_cache .ruff_cache .hypothesis

# uv installs in seconds what pip installs in minutes; pip does it where uv cannot be had.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"edgedet needs Python >= 3.11, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.11" if v < (3, 11) else 0)'
	@( while sleep 8; do echo "still installing: $$(du -sm $(VENV) 2>/dev/null | cut -f1) MB in $(VENV)"; done ) & beat=$$!; trap "kill $$beat" EXIT; \
	set -e; \
	[ -x $(RUN) ] || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }; \
	if $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt uv; then \
	  echo "installing with uv"; $(RUN) -m uv pip install --python $(RUN) -c constraints.txt -e ".[dev]"; \
	else \
	  echo "installing with pip"; $(RUN) -m pip install -c constraints.txt -e ".[dev]"; \
	fi
	@touch $@
