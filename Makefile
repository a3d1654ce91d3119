# Two commands do everything on a fresh machine: `make run` and `make test`. See `make help`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := libs/gaitfleet services/replay-api services/trainer services/rollout
SOURCES := libs/gaitfleet/src services/replay-api/src services/trainer/src services/rollout/src
ARGS ?=
DOCKER ?= docker
IMAGES := database bucket replay-api trainer rollout
BASE_IMAGE ?= python:3.11-slim-bookworm
REGISTRY ?=
IMAGE_TAG ?= 0.1.0
BUILD_ARGS ?=
OUTSIDE := not e2e and not faults and not isolation and not chart and not containers and not cluster and not observability
export REGISTRY IMAGE_TAG

.PHONY: help run test test-isolation test-fuzz test-e2e test-containers test-cluster test-observability test-faults soak images chart dashboards \
  locks check bench learning-bars study-integrator install install-dev clean

help: ## Show this help
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: install ## Install, then train the prosthetic walker on this machine (ARGS="--workers 4", see `gaitfleet up --help`)
	$(BIN)/gaitfleet up $(ARGS)

test: install-dev ## Install, then run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "$(OUTSIDE)" $(ARGS)

test-isolation: install-dev ## Test each service in an environment that holds only that service (minutes)
	$(BIN)/python -m pytest -m isolation $(ARGS)

test-fuzz: install-dev ## Many more generated requests and bodies against the replay API than `make test` makes (minutes)
	GAITFLEET_TEST_FUZZ_EXAMPLES=500 $(BIN)/python -m pytest tests/replay_api/test_openapi.py \
	  tests/replay_api/test_hostile_requests.py tests/gaitfleet/test_hostile_bodies.py $(ARGS)

test-e2e: install-dev ## Let the whole system learn Pendulum-v1 (minutes)
	$(BIN)/python -m pytest -m e2e $(ARGS)

test-faults: install-dev ## Slow and broken databases, stores, disks and clocks; frozen processes; rolling restarts (minutes; root, libfaketime)
	$(BIN)/python -m pytest -m faults $(ARGS)

soak: install-dev ## Kill every part of a running system 60 times and prove from the stores that nothing broke (a quarter of an hour)
	$(BIN)/python -m tests.soak --json benchmarks/results/soak.json $(ARGS)

images: $(IMAGES:%=image-%) ## Build all images (REGISTRY=registry.example.org/team IMAGE_TAG= BASE_IMAGE= BUILD_ARGS=)

image-%: docker/%.Dockerfile
	$(DOCKER) build --file $< --tag $(if $(REGISTRY),$(REGISTRY)/)gaitfleet-$*:$(IMAGE_TAG) --build-arg BASE_IMAGE=$(BASE_IMAGE) \
	  --build-arg VERSION=$(IMAGE_TAG) --build-arg REVISION=$(shell git rev-parse --short HEAD) $(BUILD_ARGS) .

test-containers: install-dev ## Run the system of compose.yaml in the images of `make images`, kill and scale its parts (minutes)
	$(BIN)/python -m pytest -m containers $(ARGS)

test-cluster: install-dev ## Install the chart on the cluster of KUBECONFIG, scale, upgrade and kill it there (minutes)
	$(BIN)/python -m pytest -m cluster $(ARGS)

test-observability: install-dev ## Scrape a live system with a real Prometheus and ask every panel and rule (minutes)
	$(BIN)/python -m pytest -m observability $(ARGS)

chart: .venv-chart/.installed .venv-checkov/.installed ## Lint, render and validate the Helm chart, its rules, the Dockerfiles (a minute)
	CHECKOV=.venv-checkov/bin/checkov .venv-chart/bin/python -m pytest -m chart --confcutdir tests/chart tests/chart $(ARGS)

dashboards: install-dev ## Write the chart's Grafana dashboards from deploy/dashboards
	$(BIN)/python -m deploy.dashboards

locks: .venv-locks/.installed ## Write docker/requirements: what the images install, with hashes (after changed dependencies or constraints)
	.venv-locks/bin/python docker/lock.py

check: install-dev ## Lint and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)

bench: install-dev ## Run the benchmarks and record them under benchmarks/results/
	$(BIN)/python benchmarks/run.py

study-integrator: install-dev ## Which integrator settings pay: play what is missing, then plot and table (hours)
	$(BIN)/python benchmarks/study_integrator.py $(ARGS)

learning-bars: install-dev ## Learn standard tasks with every algorithm (hours, resumable; ARGS="--tasks pendulum")
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e 'services/rollout[mujoco]'
	$(BIN)/python benchmarks/learning_bars.py $(ARGS)

install: $(VENV)/.installed ## Install the services into .venv

install-dev: $(VENV)/.installed-dev ## Install what tests and checks need, too

# One pip call for everything, so that one resolution holds for all services; constraints.txt pins what it finds.
$(VENV)/.installed: constraints.txt $(PACKAGES:%=%/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e 'libs/gaitfleet[analyze,command,database,parquet,play]' -e services/replay-api -e services/trainer \
	  -e 'services/rollout[opensim,gymnasium]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	touch $@

.venv-%/.installed: requirements-%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean: ## Remove the virtual environments and the data of `make run`
	rm -rf $(VENV) .venv-chart .venv-checkov .venv-locks data
