# Every target sets up what it needs; repeat runs are quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test simulate chaos check bench

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## a virtual environment with everything, from the lock file

$(READY): requirements.lock pyproject.toml
	@echo "setting up $(VENV) (a minute the first time) ..."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## three nodes count the standard library; one is killed, one is asked to leave
	$(BIN)/python -m examples.census.demo

test: $(READY) ## all tests, on real services that are started where they do not run yet
	$(BIN)/python -m pytest

simulate: $(READY) ## more seeds of the simulation: make simulate FROM=1 SEEDS=2000
	$(BIN)/python -m tests.simulation.replay $(or $(FROM),1) $(or $(SEEDS),2000)

chaos: $(READY) ## faults drawn by lot on three nodes and all services, then the history is checked: make chaos MINUTES=10
	$(BIN)/python -m tests.faults.chaos --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED))

check: $(READY) ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY) ## a node, the cluster beside Celery and Dramatiq, and how evenly nodes share: make bench PART="cluster=3 load=20"
	$(BIN)/python -m bench $(PART)

.PHONY: load
LOAD_READY := .venv-load/.ready

load: $(READY) $(LOAD_READY) ## Locust on three nodes, one killed: make load SECONDS=90 USERS=24 ONLY="Orders Batches"
	$(BIN)/python -m loadtests.run --seconds $(or $(SECONDS),90) --users $(or $(USERS),24) $(ONLY)

# an environment of its own: Locust brings a pytest plugin and gevent, which our tests must not meet
$(LOAD_READY): requirements-load.lock
	@echo "setting up .venv-load (half a minute the first time) ..."
	@test -x .venv-load/bin/python || $(PYTHON) -m venv .venv-load
	@.venv-load/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-load.lock
	@touch $@

.PHONY: demo-cluster
demo-cluster: $(READY) ## the census on three nodes, PostgreSQL, RabbitMQ and etcd in containers, a node killed in the middle
	$(BIN)/python -m examples.cluster.demo

.PHONY: mutations
mutations: $(READY) ## remove one guard at a time; the test that it has must fail
	$(BIN)/python -m tests.mutations $(ONLY)
