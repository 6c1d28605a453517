# `make` prints what each target does. Every target sets itself up.
PYTHON ?= python3
PIPELINE ?= .
BENCH ?=
PARTS ?=
IMAGE ?= steadyspike
READY := .venv/ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup train test lint types verify bench reliability docker-test audit sbom lock clean

help: ## Print what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Make .venv from requirements.lock, every hash checked
	@echo "ready: .venv"

$(READY): requirements.lock requirements-uv.lock pyproject.toml tools/setup.sh
	@tools/setup.sh "$(PYTHON)"

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

audit: $(READY) ## Look every locked package up among known vulnerabilities
	@python tools/audit.py

sbom: $(READY) ## Write sbom.json, the bill of materials of the image IMAGE (steadyspike)
	@tools/sbom.sh $(IMAGE) sbom.json

docker-test: ## Build the image, train in containers on a real engine, two as two machines
	@docker/test.sh

lock: $(READY) ## Pin the newest versions that pyproject.toml allows, with hashes
	@tools/lock.sh

clean: ## Remove the environment; runs, data sets and reports stay
	rm -rf .venv build dist
