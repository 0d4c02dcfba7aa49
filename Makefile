# Each target sets up what it needs, so any of them works on a fresh clone.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The environment in which our configs are tested with torchtune 0.6.1; nothing else needs it.
TUNE := .venv-torchtune
TUNE_READY := $(TUNE)/.ready

# The interpreter that creates the environments: the first one of 3.11 or newer with a venv module. PYTHON=… overrides it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
		&& echo $$python && break; done)

.PHONY: help setup demo test check bench torchtune dist test-install

help:
	@echo "make setup      the environment, in $(VENV)"
	@echo "make demo       batches, a preview page and a tiny LoRA from a folder of photos"
	@echo "make test       the tests"
	@echo "make check      lint, format, types, layers, and the code in the docs"
	@echo "make bench      benchmarks against other loaders, as ratios"
	@echo "make dist       dist/: a wheel, to install calotype without this clone"
	@echo "make test-install"
	@echo "                installs that wheel with pip into fresh environments: downloads some GB"
	@echo "make torchtune  our configs under torchtune 0.6.1, in a separate environment"

setup: $(READY)
	@echo "Ready. Run $(BIN)/calotype, or first 'source $(BIN)/activate' and then calotype."

demo: $(READY)
	$(BIN)/calotype demo --tokenizers "$$($(BIN)/python tests/real_tokenizers.py)" \
		--pipeline "$$($(BIN)/python tests/tiny_pipelines.py)"

# One process per core, up to four. The tests of a file share fixtures and stay in one process. One torch thread in each.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs_blocks.py tests/first_mile/each_extra.py tests/first_mile/newcomer.py

bench: $(READY)
	$(BIN)/python benchmarks/raw.py
	$(BIN)/python benchmarks/interference.py

# The wheel is built from the sdist, so that no file of an earlier build gets into it.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	@echo "Install it with: pip install '$$(ls dist/*.whl)[train,hub]'"

test-install: dist
	$(BIN)/python tests/first_mile/real_install.py dist/*.whl train

torchtune: $(TUNE_READY)
	$(TUNE)/bin/python -m pytest tests/compat

# Reinstalled when its inputs have changed.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing calotype and its tools into $(VENV) (PyTorch is large: some minutes on a first run)"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(TUNE_READY): pyproject.toml constraints.txt | $(TUNE)/bin/python
	@echo "Installing torchtune 0.6.1 beside calotype into $(TUNE)"
	$(TUNE)/bin/python -m pip install --constraint constraints.txt --editable '.[demo]' \
		torchtune==0.6.1 torchao==0.9.0 pytest pytest-timeout
	@touch $@

%/bin/python:
	@test -n "$(PYTHON)" || { \
		echo "calotype needs Python 3.11 or newer with its venv module (Debian: apt install python3-venv);"; \
		echo "say which with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $*
