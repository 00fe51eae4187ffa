# Needs Python >= 3.11 (the pinned versions are for it), pip and make. Everything else goes into .venv.
#
#   make train ARGS="env=HalfCheetah-v5 seed=1 total_timesteps=50_000"

VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PIP := $(PY) -m pip install --quiet --quiet --constraint constraints.txt
ARGS ?=

# An environment that happens to be active must not leak into ours.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help train notebooks test lint types pytest bench profile results docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */:/' | \
		while IFS=: read -r target text; do printf '  make %-9s %s\n' "$$target" "$$text"; done

train: $(VENV)/installed  ## train an agent: recipes/mpo.py, settings in ARGS="key=value ..."
	@$(PY) recipes/mpo.py $(ARGS)

notebooks: $(VENV)/installed-notebooks  ## open the notebooks in JupyterLab, its options in ARGS="..."
	@$(PY) -m jupyterlab notebooks $(ARGS)

test: lint types pytest  ## lint, types and the whole test suite

lint: $(VENV)/installed  ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(VENV)/installed  ## mypy
	@$(PY) -m mypy

# Two processes with a thread each are faster on small tensors than one process with many threads.
pytest: $(VENV)/installed  ## tests alone, pytest options in ARGS="..."
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -q -n 2 $(ARGS)

bench: $(VENV)/installed-bench  ## measure against the peers: table here, JSON in benchmarks/results.json
	@$(PY) -m pytest benchmarks -q --disable-warnings --benchmark-quiet --benchmark-json benchmarks/results.json $(ARGS)

profile: $(VENV)/installed-bench  ## where the time of an update goes, by part
	@$(PY) -m benchmarks.profile_parts

results: $(VENV)/installed  ## redraw every figure and table of the results from its CSV files
	@$(PY) docs/results/draw.py && $(PY) docs/results/tables.py

docs: $(VENV)/installed  ## build the site: docs/_build/html/index.html
	@$(PY) -m sphinx -q -W --keep-going -n docs docs/_build/html && echo docs/_build/html/index.html

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.benchmarks
	find . -depth -name __pycache__ -exec rm -rf {} +

# The stamp is written last, so an interrupted installation is taken up again.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make needs Python >= 3.11: none found; name one with PYTHON=..." >&2; exit 1; }
	@echo "Installing the pinned versions into $(VENV) (once)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) setuptools wheel
	@$(PIP) --no-build-isolation --editable '.[recipes,test]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	@echo "Installing what we measure against (once)"
	@$(PIP) --no-build-isolation --editable '.[recipes,test,bench]'
	@touch $@

$(VENV)/installed-notebooks: $(VENV)/installed
	@echo "Installing JupyterLab (once)"
	@$(PIP) --no-build-isolation --editable '.[recipes,test,notebooks]'
	@touch $@
