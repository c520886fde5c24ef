# Every target is one line; what needs more is a tested program in deploy/local.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
# Options for the command behind a target: make run ARGS="--port 8081"
ARGS ?=
# Without compiled modules every process of an engine takes three times as long to start.
unexport PYTHONDONTWRITEBYTECODE

##@ Everyday

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make or renew the virtual environment in .venv
	@python3 deploy/local/environment.py

.PHONY: run
run: setup ## Serve a mixture-of-experts model on this machine until Ctrl-C (options in ARGS)
	@exec $(BIN)/trierarch up $(ARGS)

.PHONY: test
test: setup ## Run every check and every test that two cores can run (pytest options in ARGS)
	@exec $(BIN)/python deploy/local/checks.py $(ARGS)

##@ Kubernetes

.PHONY: kind
kind: setup ## Bring up a kind cluster of three nodes with KubeRay, also without a registry
	@PYTHONPATH=deploy/local exec $(BIN)/python -m tests.cluster.node up $(ARGS)

.PHONY: cluster
cluster: kind ## The same as kind

.PHONY: cluster-status
cluster-status: setup ## Say how the kind cluster is; fails if it is not up
	@PYTHONPATH=deploy/local exec $(BIN)/python -m tests.cluster.node status $(ARGS)

.PHONY: cluster-down
cluster-down: setup ## Delete the kind cluster and everything that belongs to it
	@PYTHONPATH=deploy/local exec $(BIN)/python -m tests.cluster.node down $(ARGS)

##@ Single checks

.PHONY: unit
unit: setup ## Run the tests that need no engine and no cluster (pytest options in ARGS)
	@exec $(BIN)/pytest -m "not engine and not cluster" $(ARGS)

.PHONY: lint
lint: setup ## Look for mistakes with ruff
	@exec $(BIN)/ruff check . $(ARGS)

.PHONY: format
format: setup ## Format all Python files
	@exec $(BIN)/ruff format . $(ARGS)

.PHONY: typecheck
typecheck: setup ## Check the types with mypy
	@exec $(BIN)/mypy $(ARGS)

.PHONY: layers
layers: setup ## Check that imports go down only
	@exec $(BIN)/lint-imports $(ARGS)

##@ Benchmarks

.PHONY: bench
bench: bench-gateway bench-serving bench-autoscaling bench-operator ## Run every benchmark there is

.PHONY: bench-gateway
bench-gateway: setup ## Measure the gateway against HAProxy and no proxy (options in ARGS)
	@exec $(BIN)/python -m benchmarks.gateway $(ARGS)

.PHONY: bench-serving
bench-serving: setup ## Measure a replica behind the gateway against bare vLLM (options in ARGS)
	@exec $(BIN)/python -m benchmarks.serving $(ARGS)

.PHONY: bench-autoscaling
bench-autoscaling: setup ## Compare scaling policies on a trace, both fleets (ARGS="--trace FILE")
	@exec $(BIN)/python -m benchmarks.autoscaling $(ARGS)

.PHONY: bench-operator
bench-operator: setup ## Follow a thousand changing model deployments on a real API server (options in ARGS)
	@exec $(BIN)/python -m benchmarks.operator $(ARGS)

.PHONY: bench-hardware
bench-hardware: setup ## Time steps of vLLM on this machine's accelerator (ARGS="--model config.json", or --smoke)
	@exec $(BIN)/python -m benchmarks.hardware $(ARGS)

##@ Upkeep

.PHONY: generate
generate: setup ## Write the definitions, the chart's schema, README and dashboards, and reference pages
	@$(BIN)/python -m trierarch_operators.generate && exec $(BIN)/python deploy/local/chart.py

.PHONY: lock
lock: setup ## Resolve pyproject.toml into requirements/*.lock (ARGS=--upgrade for newer versions)
	@exec $(BIN)/python deploy/local/lock.py $(ARGS)

.PHONY: verify
verify: lock generate ## Fail if a generated file does not follow from its source
	@git diff --exit-code --stat -- requirements deploy/helm/trierarch docs/reference

.PHONY: clean
clean: ## Delete the environment and all caches of this checkout
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
