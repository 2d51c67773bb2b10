# make demo: the whole flow. make test, make check: what CI runs. The rest: make help.
PYTHON ?= python3.11
VENV ?= .venv
# Where the registry's plain torch is a CUDA build: TORCH=torch==2.13.0+cpu and PyTorch's CPU index
# in PIP_EXTRA_INDEX_URL.
TORCH ?= torch==2.13.0
PIP := $(VENV)/bin/python -m pip install -qq --no-deps
RUN ?= jobs/runs/demo.toml

.PHONY: help install demo test test-unit test-cluster check format browser redis calibration study bench chaos clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## set up .venv from the pinned requirements

$(VENV)/.installed: requirements/cpu.txt requirements/deepspeed.txt requirements/dev.txt pyproject.toml
	@echo "installing the pinned requirements into $(VENV) (a few minutes, once) ..."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "$(TORCH)" -r requirements/cpu.txt -r requirements/dev.txt
	@$(PIP) --no-build-isolation -r requirements/deepspeed.txt
	@$(PIP) --no-build-isolation -e .
	@touch $@

demo: install ## prompts in, critique-free student served, scored and reported
	@$(VENV)/bin/cgd run $(RUN)

test: install browser ## unit, cluster and end-to-end tests
	$(VENV)/bin/python -m pytest tests

test-unit: install ## the tests that start no engine and no cluster
	$(VENV)/bin/python -m pytest tests/unit

test-cluster: install redis ## three machines in network namespaces, and kills of them; for root on Linux
	$(VENV)/bin/python -m pytest -s -m nodes tests/nodes

check: install ## lint, formatting, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

format: install ## rewrite the files as check wants them
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

browser: # Chromium for the report page's tests, where we may install it; they skip without
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "no chromium: the report page's browser tests will be skipped"

redis: # for the head that comes back, where we may install it; its test skips without
	@command -v redis-server >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } || \
	  echo "no redis-server: the test of a head that dies will be skipped"

calibration: install ## cgd, cgd + prompt-only rows and distilled_sft in one budget (half an hour)
	$(VENV)/bin/python -m benchmarks.calibration

STUDY ?= jobs/studies/chain_sum.toml
study: install ## does the critique help? arms x seeds at matched budgets (hours on 2 cores; resumes)
	$(VENV)/bin/cgd study $(STUDY)

BENCHES ?= prompts commit_faults teacher_faults teacher_limits teacher_throughput sampling scale train_data \
  train_speed checkpoint_wait gateway serving_speed
bench: install ## README's figures, on an idle machine (three hours); BENCHES="scale" for some
	set -e; for name in $(BENCHES); do $(VENV)/bin/python -m benchmarks.$$name; done

chaos: install ## reliability checks with many seeds (an hour); LANES="commits races" for some
	$(VENV)/bin/python -m benchmarks.chaos $(LANES)

clean: ## remove the demo's work (not .venv)
	rm -rf .cgd
