# The commands a person types. `make demo` and `make test` need python3 (3.11 or newer) with venv, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
# One process a core; the tests of a file share what they start.
PARALLEL := -n logical --dist loadfile

.PHONY: demo test test-all check clean

demo: .venv/demo
	$(BIN)/pacs-cbir demo

test: .venv/test
	$(BIN)/pytest $(PARALLEL) -m "not slow"

test-all: .venv/test
	$(BIN)/pytest $(PARALLEL) -m "not alone"
	$(BIN)/pytest -m alone

check: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

# The code is installed in place, so that only a change of the dependencies installs anything again.
.venv/demo: .venv/bin/pip pyproject.toml
	$(BIN)/pip install -e '.[cpu]'
	touch $@

.venv/test: .venv/bin/pip pyproject.toml
	$(BIN)/pip install -e '.[cpu,test]'
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
