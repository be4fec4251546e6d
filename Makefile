# Two commands on a fresh machine: `make train` runs the main job, `make test` passes the tests.
# Both make .venv from the lock file first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venv-torch
TORCH ?= torch==2.13.0
# A process a processor; a file of tests stays in one, for what its tests share. Their order is that of tests/conftest.py.
TEST := -m pytest -n auto --dist loadfile --no-loadscope-reorder
RUN ?= runs/digits-longtail20-mm-drw-seed0
LOCK := uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
  --custom-compile-command "make lock" --quiet

export TF_CPP_MIN_LOG_LEVEL ?= 2

# The environment that a target's folder is to be, from a lock file.
define install
@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 11) <= v < (3, 14); \
  sys.exit(0 if ok else f"error: Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
$(PYTHON) -m venv --clear $(@D)
$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef

.PHONY: help setup train test test-backends lint format docs docs-serve lock benchmark clean

help:  ## show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.complete  ## make .venv with exactly the locked versions

$(VENV)/.complete: requirements/dev.txt pyproject.toml
	$(call install,requirements/dev.txt)
	@touch $@

# PyTorch has an environment of its own, to test that nothing needs TensorFlow or JAX, and stands outside the lock
# file, by version: for Linux there are two wheels of it, a small one for the CPU ("2.13.0+cpu") and one that needs
# gigabytes of CUDA packages, and hashes that require the one refuse the other. pip prefers the small one wherever
# it is configured to find both.
$(TORCH_VENV)/.complete: requirements/torch.txt pyproject.toml
	$(call install,requirements/torch.txt)
	$(@D)/bin/pip install --quiet --disable-pip-version-check '$(TORCH)' || { echo >&2 "error: pip finds no $(TORCH) \
	  for this Python; let it look where one is, or name another: make TORCH='torch>=2.6' ..."; exit 1; }
	@touch $@

train: setup  ## train on embedded data (long-tailed digits): a minute or two, no network
	$(BIN)/python training/fit.py --dataset digits --ratio 20 --method mm-drw --out $(RUN) --resume

test: setup  ## run the tests
	$(BIN)/python $(TEST)

test-backends: setup $(TORCH_VENV)/.complete  ## run them on JAX, and on PyTorch in .venv-torch
	KERAS_BACKEND=jax $(BIN)/python $(TEST)
	KERAS_BACKEND=torch $(TORCH_VENV)/bin/python $(TEST)

lint: setup  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## build the site, in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-serve: setup  ## show the site in a browser while it is written
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

lock:  ## write the lock files anew (needs uv)
	$(LOCK) pyproject.toml --extra dev --universal --output-file requirements/dev.txt
	# For Windows, as PyTorch needs no CUDA packages there; the hashes are those of every system's wheels.
	echo '$(TORCH)' | $(LOCK) pyproject.toml - --extra test --python-platform windows --no-emit-package torch \
	  --output-file requirements/torch.txt

benchmark: setup  ## measure speed beside other implementations (PyTorch where installed)
	$(BIN)/python benchmarks/run.py

clean:  ## remove the environment and caches, never runs
	rm -rf $(VENV) $(TORCH_VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
