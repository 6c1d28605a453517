# `make` prints what each target does. Every target that needs .venv makes it first.
PYTHON ?= python3
PIPELINE ?= .
BENCH ?=
PARTS ?=
READY := .venv/ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup train test test-fast lint types verify bench gpu-check readme reliability docker-test audit licences sbom lock clean

help: ## Print what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Make .venv from requirements.lock, checking every hash
	@echo "ready: .venv"

$(READY): requirements.lock requirements-uv.lock pyproject.toml tools/setup.sh
	@tools/setup.sh "$(PYTHON)" .venv requirements.lock
	@.venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

train: $(READY) ## Train what has changed and write reports/; PIPELINE=pipelines/cifar10 for another
	@tools/train.sh $(PIPELINE)

test: $(READY) ## Run the tests
	@tools/data.sh
	@python -m pytest

test-fast: $(READY) ## Run the tests of the method, models, data and configuration (a minute)
	@tools/data.sh
	@python -m pytest -m "not slow" tests/snn tests/kernels tests/models tests/data \
		tests/train/test_config.py tests/train/test_fingerprint.py tests/train/test_params.py

lint: $(READY) ## Check format and style
	@ruff format --check . && ruff check .

types: $(READY) ## Check types
	@mypy

verify: $(READY) ## Retrain the first batches and compare every weight with the committed runs
	@tools/data.sh
	@python -m steadyspike verify

bench: $(READY) ## Measure training speed and memory; BENCH=--peers adds other frameworks
	@tools/data.sh
	@steadyspike bench $(BENCH)

gpu-check: $(READY) ## Check this machine's GPU and write docs/runs; PARTS="tests loop" for some
	@python tools/gpu_check $(PARTS)

readme: $(READY) ## Write README's tables anew from reports/, pipelines/*/reports/ and docs/
	@python tools/readme.py

reliability: $(READY) ## Kill, resume, move, fuzz; write docs/reliability.md; PARTS=kills for one part
	@tools/data.sh
	@uv pip install --quiet --require-hashes --requirement requirements-fuzz.lock || true
	@python tools/reliability $(PARTS)

build/audit/ready: requirements-audit.lock $(READY)
	@tools/setup.sh "$(PYTHON)" build/audit requirements-audit.lock
	@touch $@

audit: build/audit/ready ## Look up known vulnerabilities of every locked package
	@tools/audit.sh

licences: build/audit/ready ## Print the licence of every installed package
	@build/audit/bin/pip-licenses --python .venv/bin/python --format markdown

sbom: build/audit/ready ## Write sbom.json, a bill of materials of every installed package
	@build/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file sbom.json .venv

docker-test: ## Build the image; train in one container, then in two as two machines
	@docker/test.sh

lock: $(READY) ## Pin the newest versions that pyproject.toml allows, with hashes
	@tools/lock.sh

clean: ## Remove .venv, build and dist; keep runs, data sets and reports
	rm -rf .venv build dist
