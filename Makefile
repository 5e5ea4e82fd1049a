# Everything happens in .venv, made from requirements.lock (versions and hashes) on first use.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
UV := UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy $(BIN)/uv

.PHONY: help setup run demo test test-quick lint format bench lock clean

help:
	@echo 'make run         start the server on this computer, with a local issuer, and print snippets'
	@echo 'make demo        load a real data set through the server and check what comes back'
	@echo 'make test        run all tests'
	@echo 'make test-quick  run the tests that take no server processes'
	@echo 'make lint        ruff and mypy'
	@echo 'make format      format the code'
	@echo 'make bench       run the benchmarks'
	@echo 'make lock        resolve the dependencies anew into requirements.lock'
	@echo 'make clean       remove .venv, caches and the data of make run'

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo 'BoilStream needs Python 3.11 or newer; set PYTHON=/path/to/python3'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo 'venv is missing; on Debian and Ubuntu: apt-get install python3-venv'; exit 1; }
	@awk '/^[a-z]/ { uv = /^uv==/ } uv' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --build-constraints requirements.lock requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)
	@exec $(BIN)/boilstream dev

demo: $(READY)
	@$(BIN)/python -m scripts.demo

test: $(READY)
	@$(BIN)/python -m pytest

test-quick: $(READY)
	@$(BIN)/python -m pytest -m 'not slow'

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)
	@$(BIN)/python -m benchmarks

lock: $(READY)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--upgrade pyproject.toml --group dev --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
