# Two commands need nothing but Python >= 3.11, git and make: `make serve` and `make test`.
SHELL := bash
VENV := .venv
PYTHON_MODULE := $(VENV)/bin/python -m
# Arguments for `modelyard serve` or pytest: make serve ARGS="--http 0.0.0.0:8080", make test ARGS="tests/unit -x"
ARGS ?=
# A file stays in one worker, so that its tests share one server.
PYTEST := $(PYTHON_MODULE) pytest -n $(or $(WORKERS),2) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help serve test quick check bench format lint lock clean parts

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.runtime ## Install into .venv and serve on http://127.0.0.1:8080 with the embedded defaults
	@exec $(VENV)/bin/modelyard serve $(ARGS)

test: $(VENV)/.dev parts ## Run every test against real parts (PostgreSQL, MinIO, git, ssh)
	$(PYTEST) $(ARGS)

quick: $(VENV)/.dev ## Run the tests that take seconds, with the parts that are there
	$(PYTEST) -m "not slow" $(ARGS)

check: lint test ## Everything that must pass before a change is merged

lint: $(VENV)/.dev ## Formatting, style, types and the direction of imports
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.dev ## Measure beside git http-backend, sshd, nginx, giftless and MinIO; writes docs/performance.md
	@bench/run $(ARGS)

format: $(VENV)/.dev ## Format the code and apply safe fixes
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

lock: $(VENV)/.dev ## Refresh every lock file to the newest versions that pyproject.toml allows
	tools/lock

clean: ## Remove .venv, caches and build results (never ./data)
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist

parts: $(VENV)/.dev
	@tools/test-parts

# requirements-dev.lock holds the same versions as requirements.lock, and more.
$(VENV)/.dev: requirements-dev.lock pyproject.toml tools/venv
	@tools/venv requirements-dev.lock
	@touch $(VENV)/.runtime $@

$(VENV)/.runtime: requirements.lock pyproject.toml tools/venv
	@tools/venv requirements.lock
	@touch $@
