# make train   makes .venv, installs, and runs the flagship recipe to the end
# make test    makes .venv, installs, and runs the whole test suite
# Needs Python 3.11 or newer, nothing else. `make help` lists every target.

PYTHON ?= python3
VENV ?= .venv
FLAGSHIP ?= recipes/lora_rbt3.toml
# Further words for the two programs: make train ARGS="train.seed=1", make test ARGS="-k lora".
ARGS ?=
# Processes that share the tests out, a file at a time.
JOBS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip
TORCH = $(shell sed -n 's/^torch==//p' constraints.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.PHONY: help install check fix test train wheel clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

install: $(STAMP)  ## make .venv and install peftlab with everything that tests and recipes need

# On Linux the default torch wheel brings gigabytes of CUDA packages. Where no NVIDIA GPU answers, the CPU build is
# taken instead: from the configured package indexes if they have it, else from PyTorch's own CPU index.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = sys.version_info >= (3, 11); ok or sys.exit("peftlab needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@echo "Installing into $(VENV); the first time takes some minutes." >&2
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@set -eu; \
	if [ "$$(uname -s)" != Linux ] || nvidia-smi -L >/dev/null 2>&1; then \
		$(PIP) install -qq -c constraints.txt "torch==$(TORCH)"; \
	else \
		$(PIP) install -qq -c constraints.txt "torch==$(TORCH)+cpu" 2>/dev/null \
		|| $(PIP) install -qq -c constraints.txt "torch==$(TORCH)+cpu" --extra-index-url $(CPU_INDEX) \
		|| { echo "torch $(TORCH)+cpu is neither in the configured package indexes nor at $(CPU_INDEX)" >&2; exit 1; }; \
	fi
	@$(PIP) install -qq -c constraints.txt -e '.[bench,curate,dev,offline,onnx,openvino,pretrain,quantised,ray,serve,summarisation,tagging,translation]'
	@set -eu; \
	cuda="$$($(PIP) list --format=freeze | grep -E '^(nvidia|cuda)-' || true)"; \
	if [ -n "$$cuda" ] && ! nvidia-smi -L >/dev/null 2>&1; then \
		echo "No NVIDIA GPU answers here, yet CUDA packages were installed:" $$cuda >&2; \
		echo "Remove $(VENV), see which requirement asks for them, and run make install again." >&2; \
		exit 1; \
	fi
	@touch $@

check: $(STAMP)  ## lint, formatting, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

fix: $(STAMP)  ## let ruff put right what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP)  ## run the whole test suite, with the network blocked
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

train: $(STAMP)  ## run the flagship recipe (FLAGSHIP=recipes/NAME.toml for another)
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		-m peftlab.train $(FLAGSHIP) $(ARGS)

wheel: $(STAMP)  ## build the wheel into dist/
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove caches and dist/; .venv and runs/ stay
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
