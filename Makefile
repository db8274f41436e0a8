# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
LOCKS := requirements/requirements.lock requirements/bootstrap.lock
READY := .venv/ready-$(shell cat $(LOCKS) | cksum | cut -d' ' -f1)
RUN := $(BIN)/python -m
ARGS ?=
export DO_NOT_TRACK := 1
SIDE_BY_SIDE := -n 3 --dist loadgroup --no-loadscope-reorder

.PHONY: help setup setup-engines demo test test-fast test-heavy up down status deploy approve reject requests alerts ack lint types suite bench bench-data bench-monitoring bench-sagemaker soak-lake bench-gateway fuzz audit-dependencies clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## make the environment from the hashed lock file

$(READY):
	@command -v $(PYTHON) >/dev/null || { echo "Ratchet needs $(PYTHON) on the PATH (or: make PYTHON=/path/to/python3.11 …)"; exit 1; }
	@echo "Making the environment in .venv (once, about 1.5 GB) …"
	@rm -f .venv/ready-*
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@$(BIN)/uv pip sync --quiet --system-certs --python $(BIN)/python --require-hashes requirements/requirements.lock \
		|| { echo "uv could not reach its index; installing the same lock file with pip …"; \
		     $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/requirements.lock; }
	@touch $(READY)

setup-engines: setup ## add Spark and Dask to the environment (0.9 GB more; Spark needs Java 17)
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --require-hashes -r requirements/engines.lock

demo: setup ## the whole story on real churn data (APPROVE=ask: you approve)
	@$(RUN) ratchet demo --approve $(or $(APPROVE),auto)

test: setup ## lint, types, import rules and all tests but the heavy
	@$(MAKE) --no-print-directory lint types
	@$(RUN) pytest -m "not heavy" $(SIDE_BY_SIDE) $(ARGS)

test-heavy: setup-engines ## what takes a minute or more each: namespaces, auto-retrain, Dask, killed Spark jobs, SageMaker
	@$(RUN) pytest -m heavy $(ARGS)

test-fast: setup ## the tests that need no server and no waiting
	@$(RUN) pytest -m "not server and not stack and not slow" $(SIDE_BY_SIDE) $(ARGS)

up: setup ## start the stack (Prefect, MLflow, worker, endpoints, gateway) and deploy the flows
	@$(RUN) ratchet up

down: ## stop the stack; what it stored stays in .ratchet
	@$(RUN) ratchet down

status: setup ## what runs, and where
	@$(RUN) ratchet status

deploy: setup ## register blocks and `prefect deploy --all` against the running stack
	@$(RUN) ratchet deploy

requests: setup ## the approval requests that wait
	@$(RUN) ratchet approvals list

approve: setup ## approve a request: BY=you REASON="why" [REQUEST=id]
	@$(RUN) ratchet approvals approve $(if $(BY),--by "$(BY)") $(if $(REASON),--reason "$(REASON)") $(if $(REQUEST),--request "$(REQUEST)")

reject: setup ## reject a request: BY=you REASON="why" [REQUEST=id]
	@$(RUN) ratchet approvals reject $(if $(BY),--by "$(BY)") $(if $(REASON),--reason "$(REASON)") $(if $(REQUEST),--request "$(REQUEST)")

alerts: setup ## the alerts that are open, and the messages that no receiver has taken yet
	@$(RUN) ratchet alerts list

ack: setup ## acknowledge an open alert, so that it is not reminded of: ALERT=cause BY=you [NOTE="…"]
	@$(RUN) ratchet alerts ack "$(ALERT)" $(if $(BY),--by "$(BY)") --note "$(NOTE)"

.PHONY: costs prices image terraform
costs: setup ## what the models cost, by month [ENV=production]
	@$(RUN) ratchet costs --environment $(or $(ENV),local)

prices: setup ## write the price table anew from the AWS Pricing API: REGION="eu-central-1 us-east-1"
	@$(RUN) ratchet prices $(REGION)

image: ## build the container image with Docker: TAG=name:tag
	@docker build -f deployments/image/Dockerfile --build-arg COMMIT=$$(git rev-parse HEAD) -t "$(TAG)" .

terraform: setup ## make, find unchanged and remove the infrastructure against moto (two minutes)
	@RATCHET_TERRAFORM_APPLY=1 $(RUN) pytest tests/deployments/test_terraform.py $(ARGS)

lint: setup ## ruff and the import rules
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: setup ## mypy, strict
	@$(BIN)/mypy

suite: setup ## propose a first expectations.yaml from the lake: MODEL=churn [FORCE=1]
	@$(RUN) ratchet suite "$(MODEL)" $(if $(FORCE),--force)

bench: setup ## the figures of docs/benchmarks.md
	@$(RUN) tests.benchmarks $(ARGS)

bench-data: setup ## the figures of data at size (ARGS="--rows 100000000 --skip metadata")
	@$(RUN) tests.benchmarks.data $(ARGS)

soak-lake: setup ## a thousand random operations on a lake, kills included (ARGS="--operations 10000 --seed 7")
	@$(RUN) tests.benchmarks.lake_soak $(ARGS)

bench-monitoring: setup ## time and memory of monitoring, by rows and by columns (ARGS="--rows --log --alone 0")
	@$(RUN) tests.benchmarks.monitoring $(ARGS)

bench-gateway: setup ## the figures of the gateway: durability, latency, forgery (about 20 minutes)
	@$(RUN) tests.benchmarks.gateway $(ARGS)

bench-sagemaker: setup ## the SageMaker adapters: overhead, kills, canaries (ARGS="--only kills")
	@$(RUN) tests.benchmarks.sagemaker $(ARGS)

fuzz: setup ## give strange input to every parser and server, for ten minutes (ARGS="--minutes 60 --seed 7")
	@$(RUN) tests.fuzz $(ARGS)

audit-dependencies: setup ## known faults in the locked packages: 0 none, 1 found, 3 no advisory database in reach
	@$(RUN) deployments.audit_dependencies $(ARGS)

lock: ## resolve the lock files anew from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --extra aws --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements/requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -c requirements/requirements.lock -o requirements/engines.lock
	@echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | $(BIN)/uv pip compile - --universal --generate-hashes --no-header --no-annotate --quiet -o requirements/bootstrap.lock

clean: down ## remove the stack's state and all caches (not the environment)
	@rm -rf .ratchet .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
