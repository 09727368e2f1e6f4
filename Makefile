# make demo and make test are all a newcomer types; .ci/run calls the same targets.
.DELETE_ON_ERROR:
.PHONY: env demo test lint bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUTPUT ?= demo
DEMO_OPTIONS ?= --size small
TEST_PROCESSES ?= 3
PYTEST_OPTIONS ?=

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mistral-txm needs Python 3.11 to 3.13, found " + sys.version.split()[0] + " (try: make PYTHON=python3.11)") if not (3, 11) <= sys.version_info < (3, 14) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: env
	$(BIN)/mistral-txm demo --output "$(DEMO_OUTPUT)" $(DEMO_OPTIONS)

# Much of the time tests wait for servers. Those of a file share them, and the first files take longest.
test: env
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

# mypy cannot follow the editable install, so it is given a folder of links.
.types/mistral_txm:
	@mkdir -p $@
	@for room in devices plans reconstruction simulated_beamline services profile_collection; do ln -sfn ../../$$room $@/$$room; done

lint: env .types/mistral_txm
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .types/mistral_txm
	$(BIN)/lint-imports

bench: env
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .types
