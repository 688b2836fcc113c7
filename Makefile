# Everything the project needs is set up by these targets; each works alone on a machine with Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test suite test-long test-fast test-tools check lint types clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	# A plain path in site-packages: the finder that is installed otherwise costs every process 10 ms.
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --config-settings editable_mode=compat -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py

check: lint types

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

# Types are checked beside the tests, which wait for their processes a third of the time.
test: lint
	$(MAKE) --no-print-directory -j 2 types suite

suite: $(STAMP)
	$(BIN)/python -m pytest -q -m 'not foreign and not long' -n 3 --dist loadfile --no-loadscope-reorder

# What takes minutes: lives under random kills, long absences, whole suites of hostile input.
test-long: $(STAMP)
	$(BIN)/python -m pytest -q -m long -n 2 --dist loadfile --no-loadscope-reorder

# Less than a minute: what starts no process.
test-fast: $(STAMP)
	$(BIN)/python -m pytest -q -m 'not foreign and not long' --fast -n 2 --dist loadfile --no-loadscope-reorder

test-tools: $(STAMP)
	sh tests/tools/install.sh
	$(BIN)/python -m pytest -q -m foreign

clean:
	rm -rf .venv .swarm build *.egg-info
