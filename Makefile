# The commands of the README: `make figures` and `make test`. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: figures test thorough hardening coverage lint dist-check mutation measurements bench bench-gpu audit notebooks lab clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed (set PYTHON=...); found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# One stamp a set of extras: nothing is installed again while these two files stand still.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the '$*' environment into $(VENV) (first time: a few minutes)"
	$(INSTALL) -e '.[$*]'
	@touch $@

figures: $(VENV)/.installed-figures  ## regenerate the figures (resumes where it stopped)
	$(BIN)/python -m paper_figures

test: $(VENV)/.installed-test  ## run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

thorough: $(VENV)/.installed-test  ## the statistical tests at length (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --timeout=0 -m slow

hardening: $(VENV)/.installed-test  ## kills, full disks, damaged and hostile files, wild input, at length (hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --timeout=0 -m hardening tests/hardening

coverage: $(VENV)/.installed-test  ## the suite, and the lines and branches that it does not run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --cov=lora_bounds --cov=lora_dropout --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=95

lint: $(VENV)/.installed-test $(VENV)/.installed-dev  ## ruff (code, docstrings, format), mypy, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dist-check: $(VENV)/.installed-dev  ## build wheel and sdist, try each in a fresh environment
	$(BIN)/python -m tests.dist_check

mutation: $(VENV)/.installed-mutation  ## mutate the formulas of lora_bounds; list what the tests miss
	$(BIN)/python -m mutmut run
	$(BIN)/python -m mutmut results

bench: $(VENV)/.installed-test  ## benchmarks: ratios against what each thing replaces (CPU)
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m benchmarks

bench-gpu: $(VENV)/.installed-test  ## the same on a GPU
	$(BIN)/python -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "no GPU here")'
	$(BIN)/python -m benchmarks --out benchmarks/results/gpu

ALL := $(foreach extra,test notebooks mutation dev audit,$(VENV)/.installed-$(extra))
audit: $(ALL)  ## the pinned packages: a table of their licences, then known vulnerabilities (network)
	$(BIN)/pip-licenses --packages $$(sed -n 's/==.*//p' constraints.txt)
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

notebooks: $(VENV)/.installed-notebooks  ## execute the notebooks and write them with their pictures
	cd notebooks && LORA_DROPOUT_STATIC=1 ../$(BIN)/jupytext --quiet --to ipynb --execute 0*.py

lab: $(VENV)/.installed-notebooks  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

measurements: $(VENV)/.installed-test  ## train and measure anew what the ledger judges (an hour; resumes)
	$(BIN)/python -m paper_figures.experiments --out lora_bounds/measurements/data

clean:  ## remove the environment and caches (results stay: they are work done)
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
