# Every target makes and uses .venv in this folder, from any Python 3.11 or later with venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help venv demo test lint format bench bench-memory clean

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

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv ## cost of pagelake over the bare work it contains (about five minutes)
	$(BIN)/python -m tests.bench

bench-memory: venv ## memory over 2,000 light pages, in one document and in 2,000 (half an hour)
	$(BIN)/python -m tests.bench memory

clean: ## remove what make made
	rm -rf .venv demo_lake build *.egg-info
