# `make demo` and `make test` are all that a fresh machine with Python 3.11 or newer needs: both set up .venv first.

PYTHON ?= python3
PYTEST_ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
TYPED := build/typed

.PHONY: demo test test-all lint docs bench calibration verdicts clean

demo: $(INSTALLED)
	$(BIN)/python case_studies/health_care_use.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# mypy and mkdocstrings read folders, not the mapping of models/ to bmtl.models: they are shown bmtl and models/ in one
# folder of links.
define links
rm -rf $(TYPED)
mkdir -p $(TYPED)/bmtl
ln -s $(CURDIR)/bmtl/* $(CURDIR)/models $(TYPED)/bmtl/
endef

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(links)
	cd $(TYPED) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p bmtl

docs: $(INSTALLED)
	$(links)
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.drawn_pairs

calibration: $(INSTALLED)
	$(BIN)/python -m benchmarks.calibration --out benchmarks/results/calibration.json

# Thousands of fits of a few shapes: XLA compiles each once for all processes.
verdicts: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/build/jax
verdicts: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.2
verdicts: $(INSTALLED)
	$(BIN)/python -m benchmarks.verdicts --out benchmarks/results/verdicts.json

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[test,studies,docs]"
	touch $@
