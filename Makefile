# The commands of this project; `make help` lists them. Everything runs in an environment built from the lock.
#   PYTHON=/path/to/python3.X   build the environment with this interpreter
#   VENV=folder                 where the environment is (default .venv)
#   ARGS="…"                    further arguments for pytest, the demo or the benchmarks

SHELL := /bin/sh
PYTHON ?=
VENV ?= .venv
ARGS ?=
RUN := $(VENV)/bin/python
# Real servers mostly wait, so that two processors carry four workers; a file stays with one, and so do its servers.
WORKERS := -n 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-attacks test-container coverage chaos fuzz soak lint format types docs reference bench lock release-check clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

venv:  ## build the environment, if the lock changed or there is none
	@scripts/make-venv.sh '$(VENV)' '$(PYTHON)'

demo: venv  ## serve model_repository/ on a real tritonserver, send good and hostile requests, print each outcome
	@$(RUN) examples/demo/demo.py $(ARGS)

test: venv  ## all tests, the real-server ones and every code block of the documentation included
	@$(RUN) -m pytest $(WORKERS) $(ARGS)

test-all:  ## all tests on each of Python 3.10 to 3.13 that is found
	@scripts/test-all.sh $(WORKERS) $(ARGS)

test-attacks: venv  ## every attack at every moment as every user; writes docs/reference/attacks.md
	@SAFE_TRITON_ATTACKS=all $(RUN) -m pytest tests/attacks $(ARGS)

test-container: venv  ## the tests on a server laid out as the container's, and Dockerfile.test's own steps
	@SAFE_TRITON_CONTAINER=all $(RUN) -m pytest tests/container $(ARGS)

coverage: venv  ## branch coverage by package, child processes and served models' commands included, each against its floor
	@scripts/coverage.sh '$(VENV)' $(ARGS)

chaos: venv  ## every fault of models and of the server, healed on a real tritonserver while others are served
	@SAFE_TRITON_CHAOS=all $(RUN) -m pytest tests/chaos tests/triton/test_supervision*.py tests/triton/test_serve_gateway.py $(ARGS)

fuzz: venv  ## 100,000 wrong requests between good ones against a served model_repository/ (ARGS="--requests N --seed S --gateway")
	@$(RUN) -m tests.fuzz.server $(ARGS)

soak: venv  ## good and hostile traffic with a fault every few seconds for 10 minutes (ARGS="--minutes N")
	@$(RUN) -m tests.soak $(ARGS)

lint: venv  ## ruff: rules and format
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check

format: venv  ## let ruff rewrite what it can
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format

types: venv  ## mypy, strict
	@$(RUN) -m mypy

docs: venv  ## build the site in build/site, every warning an error, and run every code block of README and docs
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict
	@$(RUN) -m pytest tests/docs $(ARGS)

reference: venv  ## write the generated pages of docs/reference and the picture of the architecture anew
	@PYTHONPATH=. $(RUN) scripts/reference.py
	@$(RUN) scripts/architecture_picture.py

bench: venv  ## measure a guarded model against the same model bare, on a real tritonserver
	@$(RUN) -m benchmarks $(ARGS)

lock:  ## write requirements/dev.lock anew (ARGS=--upgrade takes the newest versions)
	@python=$$(scripts/find-python.sh '$(PYTHON)') && scripts/lock.sh "$$python" $(ARGS)

release-check: venv  ## build wheel and sdist, try them alone and under the tests, lint, write an SBOM, look up vulnerabilities
	@scripts/release-check.sh '$(VENV)'

clean:  ## remove the environments and everything that was generated
	rm -rf .venv .venv-3.* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests examples model_repository benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
