# Every target makes its own environment. Options: PYTHON=/path/to/python3.12  STACK=auto|cpu|gpu  VENV=.venv
PYTHON ?= python3
STACK ?= auto
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
BOOTSTRAP := $(PYTHON) tools/bootstrap.py --venv $(VENV) --stack $(STACK)

.DEFAULT_GOAL := help
.PHONY: help setup dev demo evaluate test lint types unit integration e2e doctor wheel lock gpu-check gpu-bundle clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install SpeciaRL and its stack (GPU stack where CUDA works) into .venv
	@$(BOOTSTRAP)

dev: ## The same, with what the tests need
	@$(BOOTSTRAP) --dev

demo: setup ## Train the laptop world and show before and after (about 22 minutes on 2 cores)
	@$(BIN)/python examples/laptop/demo.py

evaluate: setup ## Evaluate the laptop world's policy before and after `make demo`, and open the report
	@$(BIN)/speciarl evaluate preset=laptop --open $(ARGS)

test: ## Everything that is checked before a change lands, with a table of where the time went
	@$(PYTHON) tools/suite.py --venv $(VENV) --stack $(STACK)

lint: dev ## Style
	@$(BIN)/ruff check .

types: dev ## Static types
	@$(BIN)/mypy

unit: dev ## The tests that need neither Ray nor vLLM
	@$(PYTEST) tests/unit

integration: dev ## The tests with real processes
	@$(PYTEST) tests/integration

e2e: dev ## The tests that train
	@$(PYTEST) tests/e2e

doctor: setup ## Check the installation and tell how to mend it
	@$(BIN)/speciarl doctor

wheel: dev ## Build the wheel into dist/
	@$(BIN)/python -m build --wheel --outdir dist .

lock: dev ## Resolve both stacks anew (needs the package index)
	@$(BIN)/python tools/lock.py

gpu-check: setup ## Run the main recipe on one GPU with made-up models and print what it took (docs/gpu.md)
	@$(BIN)/python benchmarks/gpu/check.py $(ARGS)

gpu-bundle: setup ## Pack the GPU stack's wheels for a machine without network; ARGS="--have freeze.txt" leaves out what it has
	@$(BIN)/python tools/gpu_bundle.py $(ARGS)

clean: ## Remove what builds and runs leave in the checkout, but not .venv
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis outputs logs
	@find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
