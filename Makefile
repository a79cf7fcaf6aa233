# Every target makes the virtual environment itself; two commands do all the set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready

# What `make proof` draws by chance; give one to run the same again.
EVENTLOG_PROOF_SEED := $(or $(EVENTLOG_PROOF_SEED),$(shell $(PYTHON) -c 'import random; print(random.randrange(1 << 32))'))

# How much of the packages the tests must reach, in percent, branches counted.
CORE_COVERAGE := 99
ADAPTERS_COVERAGE := 95

.PHONY: demo test test-postgres proof mutants lint format docs bench bench-scale screenshots clean
.DEFAULT_GOAL := demo

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $(INSTALLED)

$(READY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

demo: $(INSTALLED)      ## a conversation on an event log, from Runner.run to a replay
	$(BIN)/eventlog demo

test: $(READY)          ## all tests; they leave nothing of the core unreached, and little of the adapters
	$(BIN)/pytest -n auto --dist worksteal -q --cov --cov-report=
	$(BIN)/coverage report --include='eventlog/*,projections/*' --fail-under=$(CORE_COVERAGE)
	$(BIN)/coverage report --include='adapters/*' --fail-under=$(ADAPTERS_COVERAGE)

test-postgres: $(READY) ## the adapters' and the properties' tests again, with their logs on PostgreSQL
	HYPOTHESIS_PROFILE=quick $(BIN)/pytest -n auto --dist worksteal -q --engine=postgres

mutants: $(READY)       ## is each line guarded by a test? MODULE=eventlog/codec.py asks one module only
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[proof]'
	$(BIN)/python -m tests.mutation $(MODULE)

proof: $(READY)         ## the long tests: faults, crashes, power loss, load; EVENTLOG_PROOF_SEED=... repeats a run
	@echo "EVENTLOG_PROOF_SEED=$(EVENTLOG_PROOF_SEED)"
	$(BIN)/pytest -m proof --seed=$(EVENTLOG_PROOF_SEED) -n auto --dist worksteal -v
	$(BIN)/python -m benchmarks.load --seed $(EVENTLOG_PROOF_SEED)

lint: $(READY)          ## ruff (lint and format), mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)          ## the manual as a web site, in build/site; a dead link is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(READY)         ## the figures of the README beside the SDK's class
	$(BIN)/python -m benchmarks

bench-scale: $(READY)   ## the figures of the README for large logs and many sessions; takes hours, 40 GB of disk
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.sessions

screenshots: $(READY)   ## the pictures of the manual, from the demo's file; needs chromium-headless-shell
	$(BIN)/python -m tests.browser.screenshots docs/pictures

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
