# Two commands on a fresh machine: `make train` runs the main job, `make test` passes the tests.
# Both make .venv from the lock file first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/digits-longtail20-mm-drw-seed0

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help setup train test lint format lock benchmark clean

help:  ## show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.complete  ## make .venv with exactly the locked versions

$(VENV)/.complete: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 11) <= v < (3, 14); \
	  sys.exit(0 if ok else f"error: Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

train: setup  ## train on embedded data (long-tailed digits): about a minute, no network
	$(BIN)/python training/fit.py --dataset digits --ratio 20 --method mm-drw --out $(RUN) --resume

test: setup  ## run the tests
	$(BIN)/python -m pytest

lint: setup  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## write requirements/dev.txt anew (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" --quiet --output-file requirements/dev.txt

benchmark: setup  ## measure speed beside other implementations (PyTorch where installed)
	$(BIN)/python benchmarks/run.py

clean:  ## remove the environment and caches, never runs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
