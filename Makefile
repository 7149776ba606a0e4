# Thin: every target first makes .venv with all that pyproject.toml asks for, once, and then calls one tool.

PYTHON  ?= python3
PROFILE ?= quick
WORKERS ?= 2
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

VENV  := .venv
RUN   := $(VENV)/bin/python
PINS  := $(VENV)/constraints.txt
STAMP := $(VENV)/.installed

.PHONY: help verify test test-cluster coverage lint lint-code lint-format lint-types bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

verify: $(STAMP)  ## verify the theorems: PROFILE=quick (default), full or thorough
	$(RUN) -m manifoldlab verify --profile $(PROFILE)
	@echo
	@echo "Go on with"
	@echo "  make verify PROFILE=full        more cases, under 15 minutes"
	@echo "  make verify PROFILE=thorough    ten times the cases of full, with fresh seeds"
	@echo "  $(VENV)/bin/manifoldlab --help    everything else"

test: lint  ## lint, then tests and theory checks (WORKERS=N: in N processes)
	$(RUN) -m pytest tests -n $(WORKERS) --timeout=600
	$(RUN) -m pytest theory_checks -n $(WORKERS) --timeout=600 --hypothesis-profile=quick

test-cluster: $(STAMP)-cluster  ## tests on a cluster of two workers; installs the extra `cluster`
	$(RUN) -m pytest tests/cluster --timeout=600

# How soon --help is there says nothing while every line is counted.
TIMED := tests/test_app.py::test_help_is_quick_and_leaves_torch_alone

coverage: $(STAMP)  ## line coverage by tests and theory checks together; fails below 95 %
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest tests -n $(WORKERS) --timeout=1200 --deselect $(TIMED)
	$(RUN) -m coverage run -m pytest theory_checks -n $(WORKERS) --timeout=1200 --hypothesis-profile=quick
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

lint: lint-code lint-format lint-types  ## ruff check, ruff format --check, mypy --strict

lint-code: $(STAMP)
	$(RUN) -m ruff check .

lint-format: $(STAMP)
	$(RUN) -m ruff format --check .

lint-types: $(STAMP)
	$(RUN) -m mypy --strict

bench: $(STAMP)-bench  ## the benchmarks, in one process; installs the libraries that do the same jobs
	$(RUN) -m pytest benchmarks -n 0 --benchmark-only

clean:  ## remove .venv and every cache; results/ stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The folder of an installed torch that is new enough (the floor of pyproject.toml), else an error.
TORCH_FOLDER := import pathlib, torch; \
  assert tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11); \
  print(pathlib.Path(torch.__file__).parents[1])

# Such a torch (a CUDA build, say) is kept: .venv sees the packages of the environment. The .pth
# file is for an active virtual environment, whose packages --system-site-packages does not show.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "manifoldlab needs Python 3.11 or newer, $(PYTHON) is: $$($(PYTHON) --version 2>/dev/null || echo not found)." \
	    "Name another: make PYTHON=python3.12 verify"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment: install its venv module" \
	    "(on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@set -e; folder=$$($(PYTHON) -c '$(TORCH_FOLDER)' 2>/dev/null) || folder=; \
	echo "==> set-up 1/2: making $(VENV) with $$($(PYTHON) --version)$${folder:+, keeping torch of $$folder}"; \
	$(PYTHON) -m venv $${folder:+--system-site-packages} $(VENV); \
	if [ -n "$$folder" ]; then \
	  echo "$$folder" > "$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/kept_torch.pth"; \
	fi

# Pins that would replace a kept torch, or contradict what it requires, are left out.
$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/pip
	@if $(RUN) -c 'import sys, torch; sys.exit(torch.__file__.startswith(sys.prefix + "/"))' 2>/dev/null; \
	then grep -vE '^(torch|torchvision|numpy|setuptools)==' constraints.txt > $(PINS); \
	else cp constraints.txt $(PINS); fi
	@echo "==> set-up 2/2: installing into $(VENV) (a minute, or as long as the download of torch takes)"
	@PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS) $(RUN) -m pip install --compile -e '.[dev]' || { \
	  echo "The set-up failed, see above. Repeat the command, or start afresh after: make clean"; exit 1; }
	@touch $(STAMP)
	@echo "==> set-up done"

$(STAMP)-cluster: $(STAMP)
	@PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS) $(RUN) -m pip install -e '.[cluster]'
	@touch $(STAMP)-cluster

# torchattacks without its dependencies: it pins a requests of 2020, and asks for torchvision, which it
# imports nowhere that is used here.
$(STAMP)-bench: $(STAMP)
	@PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS) $(RUN) -m pip install -e '.[bench]'
	@PIP_CONSTRAINT=$(PINS) $(RUN) -m pip install --no-deps torchattacks
	@touch $(STAMP)-bench
