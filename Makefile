# Works with nothing but Python 3.11 or newer, git and make (also the old GNU make 3.81).
PYTHON ?= python3
python := .venv/bin/python
# A command with the settings of the stack that `make up` runs.
local := @$(python) -m local.run

.PHONY: help install up token migrate cleanup doctor session retry refunds chaos test test-full bench lint format clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 12

install:         ## .venv with everything in uv.lock
	@$(PYTHON) local/install.py

up: install      ## the whole service, until Ctrl-C; it ends with this make, however that ends
	@exec $(python) -I -S local/launch.py --end-with-parent SIGTERM -- $(python) -m local.up

token: install   ## a development token; USER_ID=... ROLE=service_role for others than the demo user
	@$(python) -m local.tokens $(USER_ID) $(ROLE)

migrate: install ## bring the database of `make up`, or of DATABASE_URL, up to date
	$(local) python -m db.migrate up

cleanup: install ## expire and delete what is due, by hand
	$(local) python -m workers.cleanup

doctor: install  ## does everything hold that must? read-only; fails if not
	$(local) python -m workers.doctor

session: install ## what happened to this one: ID=... of a session or a task
	$(local) python -m workers.history $(ID)

retry: install   ## take up a task that was given up: ID=...
	$(local) python -m workers.retry $(ID)

refunds: install ## payments that were refused, to be given back by hand
	$(local) python -m workers.refunds

chaos: install   ## kill everything under load, and judge: SECONDS=600 SEED=7 KINDS="redis killed,api killed"
	@$(python) -m tests.chaos --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(if $(KINDS),--kinds "$(KINDS)")

lint: install    ## style, types, import contracts
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy
	@.venv/bin/lint-imports

format: install  ## what a machine can put right
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

# Two test processes, since most tests mostly wait for other processes; the contract's in one, to be judged as a whole.
test: lint       ## everything but the slow tests
	@$(python) -m tests.browser.install
	@$(python) -m tests.monitoring.install
	@$(python) -m pytest -m "not slow" --ignore tests/api --numprocesses 2 --dist loadgroup
	@$(python) -m pytest -m "not slow" tests/api

test-full: lint  ## everything
	@$(python) -m tests.browser.install
	@$(python) -m tests.monitoring.install
	@$(python) -m pytest

BENCH ?= compare
bench: install   ## this service beside its baselines, twenty minutes; OPTIONS=--quick, BENCH=large|upkeep|bloat|waits|scale
	@.venv/bin/uv sync --quiet --frozen --inexact --group bench
	@$(python) -m benchmarks $(BENCH) --out benchmarks/results $(OPTIONS)

clean:           ## caches; the data in .local and .venv stay
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache artifacts
