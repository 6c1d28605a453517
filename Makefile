# `make` prints what each target does. Every target sets itself up.
PYTHON ?= python3
PIPELINE ?= .
BENCH ?=
PARTS ?=
READY := .venv/ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup train test lint types verify bench reliability docker-test audit licences sbom lock clean

help: ## Print what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Make .venv from requirements.lock, every hash checked
	@echo "ready: .venv"

$(READY): requirements.lock requirements-uv.lock pyproject.toml tools/setup.sh
	@tools/setup.sh "$(PYTHON)" .venv requirements.lock
	@.venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

train: $(READY) ## Train every experiment and regenerate every table and figure
	@tools/train.sh $(PIPELINE)

test: $(READY) ## Run the tests
	@dvc pull --quiet --remote embedded data.dvc
	@python -m pytest

lint: $(READY) ## Check format and style
	@ruff format --check . && ruff check .

types: $(READY) ## Check types
	@mypy

verify: $(READY) ## Train the first batches again and compare every weight with the committed runs
	@dvc pull --quiet --remote embedded data.dvc
	@python -m steadyspike verify

bench: $(READY) ## Measure speed and memory of the training step; BENCH=--peers beside others
	@dvc pull --quiet --remote embedded data.dvc
	@steadyspike bench $(BENCH)

reliability: $(READY) ## Kill, resume, move, fuzz; writes docs/reliability.md; PARTS=kills one part
	@dvc pull --quiet --remote embedded data.dvc
	@uv pip install --quiet --require-hashes --requirement requirements-fuzz.lock || true
	@python tools/reliability $(PARTS)

build/audit/ready: requirements-audit.lock $(READY)
	@tools/setup.sh "$(PYTHON)" build/audit requirements-audit.lock
	@touch $@

audit: build/audit/ready ## Look every locked package up among known vulnerabilities
	@tools/audit.sh

licences: build/audit/ready ## Print the licence of every installed package
	@build/audit/bin/pip-licenses --python .venv/bin/python --format markdown

sbom: build/audit/ready ## Write sbom.json, a bill of materials of every installed package
	@build/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file sbom.json .venv

docker-test: ## Build the image, train in containers on a real engine, two as two machines
	@docker/test.sh

lock: $(READY) ## Pin the newest versions that pyproject.toml allows, with hashes
	@tools/lock.sh

clean: ## Remove the environment; runs, data sets and reports stay
	rm -rf .venv build dist
