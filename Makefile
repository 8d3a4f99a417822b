# Linux, Python 3.11 or newer, make. Everything else is fetched by exact version, hash-checked.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON_IN_VENV := .venv/bin/python
IMAGE ?= lethe:dev
# How many tests run at the same time, each against servers of its own: about a core and a gigabyte each.
TEST_WORKERS ?= 2
# How long `make search` looks for faults.
MINUTES ?= 10
KIND_VERSION ?= v0.30.0
BUILDER ?= $(firstword $(shell command -v buildah docker podman 2>/dev/null))

.PHONY: help install lock upgrade check format crds test test-fast test-all test-rules search demo bench binaries cluster cluster-down image sbom node-e2e node-down kind-e2e clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

install: ## .venv with the project in it
	@requirements/install

lock: install ## write requirements/*.txt anew, changing only what must change
	requirements/lock

upgrade: install ## the same, with the newest of everything
	requirements/lock --upgrade

check: install ## lint, format, types, imports, generated files
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON_IN_VENV) -m lethe.api.crd --check crds
	$(PYTHON_IN_VENV) -m devtools.diagrams --check

format: install ## let ruff mend what it can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

crds: install ## generate crds/ from the models
	$(PYTHON_IN_VENV) -m lethe.api.crd crds
	$(PYTHON_IN_VENV) -m devtools.chart

binaries: install ## etcd, kube-apiserver and kubectl, built once and kept outside the checkout
	@$(PYTHON_IN_VENV) -m devtools.cluster.build >/dev/null

test: binaries ## all tests but the second stage's, against real servers; PYTEST_ARGS narrows, TEST_WORKERS=n
	@$(PYTHON_IN_VENV) -m devtools.builds.helm.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.restic.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.versitygw.build >/dev/null
	$(PYTHON_IN_VENV) -m pytest -n $(TEST_WORKERS) --dist loadfile --durations=15 $(if $(ALL_STAGES),,-m "not stage2") $(PYTEST_ARGS)

test-fast: install ## in about two minutes, and nothing is built: what needs no more than the virtualenv
	$(PYTHON_IN_VENV) -m pytest -n $(TEST_WORKERS) --dist loadfile --fast --durations=5 $(PYTEST_ARGS)

test-all: export ALL_STAGES = yes
test-all: install ## the same with the second stage: servers whose builds take long
	@$(PYTHON_IN_VENV) -m devtools.builds.minio.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.kstatus.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.promtool.build >/dev/null
	@$(MAKE) test

test-rules: binaries ## of the second stage: alerts by promtool, health rules by Argo CD's Lua and Flux's kstatus, restores by pgBackRest and Barman
	@$(PYTHON_IN_VENV) -m devtools.builds.helm.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.kstatus.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.promtool.build >/dev/null
	$(PYTHON_IN_VENV) -m pytest -n $(TEST_WORKERS) --dist loadfile -m stage2 --durations=15 tests/alerts tests/chart tests/examples tests/gitops tests/invariants $(PYTEST_ARGS)

search: install ## look for faults at random; MINUTES=10, and prints what it found as tests to paste
	$(PYTHON_IN_VENV) -m pytest -p tests.search.plugin --minutes $(MINUTES) -m "hypothesis or machine" \
	  -n $(TEST_WORKERS) --dist each --tb=short --show-capture=no -v $(PYTEST_ARGS)

demo: binaries ## the story, on real servers
	@$(PYTHON_IN_VENV) -m devtools.builds.versitygw.build >/dev/null
	@$(PYTHON_IN_VENV) examples/quickstart/demo.py

bench: binaries ## figures, on real servers
	$(PYTHON_IN_VENV) -m bench $(BENCH_ARGS)

cluster: binaries ## etcd and kube-apiserver in the background; kubeconfig in build/cluster/
	@$(PYTHON_IN_VENV) -m devtools.cluster up build/cluster

cluster-down: install ## stop them
	@$(PYTHON_IN_VENV) -m devtools.cluster down build/cluster

image: ## the operator's image; IMAGE=name:tag, PYTHON_IMAGE=base
	@[[ -n "$(BUILDER)" ]] || { echo "buildah, docker or podman is needed to build an image." >&2; exit 1; }
	$(BUILDER) build -t $(IMAGE) $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) $(IMAGE_ARGS) .

node-e2e: install ## the story in a real node on this machine (root, Debian packages); PYTHON_IMAGE=base
	@$(PYTHON_IN_VENV) -m devtools.node.packages
	@$(PYTHON_IN_VENV) -m devtools.cluster.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.helm.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.node.build >/dev/null
	@$(PYTHON_IN_VENV) -m devtools.builds.kube_router.build >/dev/null
	PYTHON_IMAGE=$(PYTHON_IMAGE) $(PYTHON_IN_VENV) -m pytest tests/node -m node $(PYTEST_ARGS)

node-down: install ## remove what a node left that could not do so itself
	@$(PYTHON_IN_VENV) -m devtools.node.leftovers

kind-e2e: install ## the same story on kind; needs Docker
	@docker info >/dev/null 2>&1 || { echo "kind-e2e needs Docker, and none answers here; make node-e2e does without." >&2; exit 1; }
	@$(MAKE) binaries
	@$(MAKE) image BUILDER=docker
	@$(PYTHON_IN_VENV) -m devtools.builds.helm.build >/dev/null
	IMAGE=$(IMAGE) KIND_VERSION=$(KIND_VERSION) $(PYTHON_IN_VENV) -m pytest tests/node -m kind -p pytest_kind.plugin $(PYTEST_ARGS)

sbom: build/sbom-tool/locked.txt ## the image's bill of materials, as CycloneDX: build/sbom.json
	build/sbom-tool/bin/python image/sbom.py build/sbom.json
	@echo build/sbom.json

build/sbom-tool/locked.txt: requirements/sbom.txt | install
	rm -rf build/sbom-tool
	$(PYTHON_IN_VENV) -m venv build/sbom-tool
	build/sbom-tool/bin/python -m pip install --quiet --require-hashes -r requirements/sbom.txt
	cp requirements/sbom.txt $@

clean: ## remove what was made here; the cache outside the checkout stays
	@[[ ! -f build/cluster/pid || ! -x $(PYTHON_IN_VENV) ]] || $(MAKE) cluster-down
	rm -rf .venv build dist operator/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
