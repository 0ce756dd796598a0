# The one door: `make` lists what there is.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 0
MODEL ?= auto
NAME ?=
VERSION ?= 1.0
ENGINE ?=
PRECISION ?=
RUN_DIR ?= run

VENV_PYTHON := .venv/bin/python
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help serve stop mar models test train speech evaluate calibrate bench setup setup-tools setup-bench setup-dev lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

serve: setup ## run the service (HOST PORT WORKERS MODEL=auto|commonaccent|embedded|PATH ENGINE PRECISION)
	@exec $(VENV_PYTHON) -m scripts.serve --model '$(MODEL)' --name '$(NAME)' --version '$(VERSION)' \
	    --engine '$(ENGINE)' --precision '$(PRECISION)' \
	    --host '$(HOST)' --port '$(PORT)' --workers '$(WORKERS)' --run-dir '$(RUN_DIR)' \
	    $(if $(HUB_URL),--hub-url '$(HUB_URL)') $(if $(MODEL_CACHE),--model-cache '$(MODEL_CACHE)')

stop: ## end the service that runs from this folder
	@if [ -x $(VENV_PYTHON) ]; then $(VENV_PYTHON) -m scripts.serve --stop --run-dir '$(RUN_DIR)'; \
	    else echo "Nothing is being served from here."; fi

mar: setup ## build model_store/NAME.mar (MODEL NAME VERSION ENGINE PRECISION=auto|fp32|bf16|int8)
	@$(VENV_PYTHON) -m scripts.package '$(MODEL)' --name '$(NAME)' --version '$(VERSION)' \
	    --engine '$(ENGINE)' --precision '$(PRECISION)'

models: setup ## versions while they serve (ARGS='list', register, canary, compare, promote, ...)
	@$(VENV_PYTHON) -m scripts.models --run-dir '$(RUN_DIR)' $(ARGS)

test: setup-dev setup-bench lint ## everything: ruff, types, unit, contract and end-to-end tests
	@$(VENV_PYTHON) -m pytest

lint: setup-dev ## ruff and the type checker
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy

train: setup-tools ## train a model (DATA OUT [EXTRA TEACHER=1 INIT SEED STEPS LABELS OPTIONS])
	@$(VENV_PYTHON) -m scripts.train --data $(DATA) --out '$(OUT)' \
	    $(if $(EXTRA),--extra $(EXTRA)) $(if $(TEACHER),--teacher) $(if $(INIT),--init '$(INIT)') \
	    $(if $(SEED),--seed '$(SEED)') $(if $(STEPS),--steps '$(STEPS)') \
	    $(if $(LABELS),--labels '$(LABELS)') $(OPTIONS)

speech: setup-tools ## synthesise speech in several accents to train on ([OUT ROUNDS JOBS])
	@$(VENV_PYTHON) -m scripts.speech $(if $(OUT),--out '$(OUT)') \
	    $(if $(ROUNDS),--rounds '$(ROUNDS)') $(if $(JOBS),--jobs '$(JOBS)')

evaluate: setup-tools ## judge a model (MODEL or URL, DATA [OUT JOBS ROBUSTNESS=1 FAIL_UNDER FAIL_OVER])
	@$(VENV_PYTHON) -m scripts.evaluate --model '$(MODEL)' --data '$(DATA)' \
	    $(if $(URL),--url '$(URL)') $(if $(OUT),--out '$(OUT)') $(if $(JOBS),--jobs '$(JOBS)') \
	    $(if $(ROBUSTNESS),--robustness) $(if $(FAIL_UNDER),--fail-under '$(FAIL_UNDER)') \
	    $(if $(FAIL_OVER),--fail-over '$(FAIL_OVER)')

calibrate: setup-tools ## fit a model's softmax scale (MODEL DATA [INTO OUT JOBS SEED DRY_RUN=1])
	@$(VENV_PYTHON) -m scripts.calibrate --model '$(MODEL)' --data '$(DATA)' \
	    $(if $(INTO),--into '$(INTO)') $(if $(OUT),--out '$(OUT)') $(if $(JOBS),--jobs '$(JOBS)') \
	    $(if $(SEED),--seed '$(SEED)') $(if $(DRY_RUN),--dry-run)

bench: setup-bench ## the service beside others: under ten minutes ([OPTIONS='--write-readme'])
	@$(VENV_PYTHON) -m scripts.bench $(OPTIONS)

setup: ## make the environment in .venv
	@$(PYTHON) -m scripts.set_up

setup-tools: ## the same, with what training and the reports need
	@$(PYTHON) -m scripts.set_up --tools

setup-bench: ## the same, and .venv-bench with what the service is compared with
	@$(PYTHON) -m scripts.set_up --bench

setup-dev: ## the same, with what the tests need
	@$(PYTHON) -m scripts.set_up --dev

clean: ## remove what was built; the environment and the model cache stay
	@rm -rf build run model_store/*.mar .pytest_cache .mypy_cache .ruff_cache .hypothesis
