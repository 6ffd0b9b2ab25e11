# Every target makes and uses .venv in this folder, from any Python 3.11 or later with venv.
PYTHON ?= python3
BIN := .venv/bin
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

# A real vLLM for CPUs, built once in a cache outside this folder: see tests/vllm/environment.py.
VLLM = VLLM_PYTHON="$$($(PYTHON) -m tests.vllm.environment | tail -n 1)" && \
	export PYTHONPATH="$(CURDIR)" && "$$VLLM_PYTHON" -m

# Spark with a JVM of Debian's, likewise: see tests/spark/environment.py.
SPARK = SPARK_PYTHON="$$($(PYTHON) -m tests.spark.environment | tail -n 1)" && \
	export PYTHONPATH="$(CURDIR)" && "$$SPARK_PYTHON" -m

.PHONY: help venv demo test test-recovery test-spark test-vllm lint format clean \
	bench bench-plan bench-ngram bench-vllm bench-memory

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

venv: .venv/installed ## install pagelake and what it is developed with into .venv

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv ## read sample_docs into demo_lake and query it
	$(BIN)/pagelake ingest sample_docs demo_lake
	$(BIN)/pagelake status demo_lake
	$(BIN)/pagelake sql demo_lake "$$(cat sample_docs/_make/demo.sql)"

test: venv lint ## what to run all day: lint, types and tests
	$(BIN)/python -m pytest

test-recovery: venv ## runs killed at every step, against S3; histories of failing stores
	$(BIN)/python -m pytest -o addopts=-q --durations=10 tests/recovery

test-spark: venv ## the lake read by Spark in a local JVM (needs java)
	$(SPARK) pytest -o addopts=-q --confcutdir=tests/spark tests/spark

test-vllm: ## the same through a real vLLM with a model made on the spot (about ten minutes)
	$(VLLM) tests.vllm.checkpoint
	$(VLLM) pytest -o addopts=-q --durations=10 tests/vllm

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv ## cost of pagelake over the bare work it contains (about five minutes)
	$(BIN)/python -m tests.bench

bench-plan: venv ## planning 100,000 and 1,000,000 objects that the lake knows (half a minute)
	$(BIN)/python -m tests.bench_plan

bench-ngram: ## our n-gram processor against vLLM's own, in one process
	$(VLLM) tests.bench_ngram

bench-vllm: ## what vLLM spends on the CPU for a page, rendered as ours and at 300 dpi
	$(VLLM) tests.bench_vllm

bench-memory: venv ## memory over 2,000 light pages, in one document and in 2,000 (half an hour)
	$(BIN)/python -m tests.bench memory

clean: ## remove what make made
	rm -rf .venv demo_lake build *.egg-info
