# Two commands matter: `make run` and `make test`. Everything is installed into .venv of this checkout.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

.PHONY: help install run test check scenes lint soak bench crossvalidate lock lock-simulators clean
.DEFAULT_GOAL := help

help:
	@echo "make run      install what is missing and start the default network (ARGS='ring6 --for 5m')"
	@echo "make test     every test but the scenes, 6 to 7 minutes"
	@echo "make check    make lint (format, lint, types, import contracts) and the fast tests, 2 minutes at most"
	@echo "make scenes   whole flows over real processes, 15 minutes at most"
	@echo "make soak     one hour of faults under load (ARGS='--minutes 10 --folder DIR')"
	@echo "make bench    measure (ARGS='keys')"
	@echo "make crossvalidate  chains of entangled links against SeQUeNCe (ARGS='--fresh')"
	@echo "make install  only install; make lock renews requirements/*.txt (needs uv); make clean forgets .venv"

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "multiplane needs Python 3.11 to 3.13, but $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.run: .venv/.made requirements/run.txt pyproject.toml
	@echo "installing multiplane and what it runs on (requirements/run.txt, hashes checked)"
	@$(PIP) install --require-hashes --requirement requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	@echo "installing what the tests need (requirements/dev.txt, hashes checked)"
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $@

install: .venv/.run

run: .venv/.run
	@exec $(BIN)/multiplane up $(ARGS)

# Files of tests side by side; scenes that measure one after the other.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

test: .venv/.dev
	$(BIN)/pytest -q $(SIDE_BY_SIDE) -m "not scene" $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff format --quiet --check .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: lint
	$(BIN)/pytest -q $(SIDE_BY_SIDE) -m "not slow and not scene" $(ARGS)

# What ARGS choose may all be of one sort: then there is nothing to run of the other.
NONE_CHOSEN = { [ $$? = 5 ] && $(if $(ARGS),true,false); }
scenes: .venv/.dev
	$(BIN)/pytest -q --numprocesses 2 --dist loadfile -m "scene and not alone" $(ARGS) || $(NONE_CHOSEN)
	$(BIN)/pytest -q -m "scene and alone" $(ARGS) || $(NONE_CHOSEN)

soak: .venv/.dev
	$(BIN)/python -m tests.scenes.tools.soak $(ARGS)

bench: .venv/.dev
	$(BIN)/python -m bench $(ARGS)

crossvalidate: .venv/.run
	@exec $(BIN)/multiplane crossvalidate $(ARGS)

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate

# The build back end is part of run.txt: an installation builds the project without looking elsewhere.
lock:
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' | \
	  $(LOCK) pyproject.toml - --output-file requirements/run.txt
	$(LOCK) pyproject.toml --extra dev --constraints requirements/run.txt --output-file requirements/dev.txt

# Other simulators: what `multiplane backends install` takes. Whoever renews them measures the reference again.
SIMULATORS := src/multiplane/assembly/simulators
lock-simulators:
	echo 'sequence==1.3.1' | $(LOCK) --python-version 3.12 - --output-file $(SIMULATORS)/sequence.txt
	echo 'qunetsim==0.1.3.post1' | $(LOCK) - --output-file $(SIMULATORS)/qunetsim.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
