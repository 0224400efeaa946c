# The front door: people and CI run the same commands. Each sets up what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS ?= tensorflow

.DEFAULT_GOAL := help
.PHONY: help install demo test fuzz docs bench growth scale lint format clean

help:  ## List the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[$(EXTRAS),kaggle,mlflow,ray,tensorboard]' $$($(BIN)/python scripts/dev_requirements.py)
	touch $@

install: $(BIN)/.installed  ## Install into .venv

demo: install  ## Run a small study from start to page, in minutes, always anew
	rm -rf runs/demo
	$(BIN)/batchscope run demo --out runs/demo

test: install  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: install  ## Try 10,000 hostile inputs of each kind, in minutes, other ones each time
	BATCHSCOPE_FUZZ_EXAMPLES=10000 $(BIN)/python -m pytest tests/fuzz -n 2 --dist worksteal --timeout 3600

$(BIN)/.docs-installed: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$$($(BIN)/python scripts/dev_requirements.py docs)
	touch $@

docs: $(BIN)/.docs-installed  ## Build the documents' site into site/; fails where a reference has drifted or a link is dead
	$(BIN)/python scripts/reference.py --check
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir build/doctrees docs site
	$(BIN)/python scripts/site_check.py site

bench: install  ## Measure against plain Keras and plain PyTorch; writes docs/performance.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m pytest tests/bench
	$(BIN)/python bench/run.py $(BENCH)
	$(BIN)/python bench/operations.py

growth: install  ## Measure how time and memory grow; writes docs/performance.md
	$(BIN)/python bench/growth.py

scale: install  ## Measure ten thousand trials and two nodes against one; writes docs/performance.md
	$(BIN)/python bench/scale.py

lint: install  ## Check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove the environment and caches
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
