# The front door. `make help` is made of the comments that begin with two hashes:
#   "##@ Heading" starts a group, "target: ## text" is a target's line, "##: NAME text" a setting's.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/bench/.ready
SBOM := $(VENV)/sbom/.ready
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"

# --rate 100 for RATE=100, nothing for a variable that was not given.
flag = $(if $(strip $($(1))),--$(2) '$(subst ','\'',$($(1)))')
RUN_FLAGS = $(call flag,RATE,rate) $(call flag,EVENTS,events) $(call flag,DURATION,duration) $(call flag,SEED,seed) \
            $(call flag,CSV,csv) $(call flag,PLATES,plates) $(call flag,SINKS,sinks)

STACK = $(PYTHON) deploy/compose/stack.py

.DEFAULT_GOAL := help

# Sources and tests are compiled once, and not by each of the thousand processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

# What a target takes on the command line, beside what all take; one that is not here takes no more.
TAKES := PYTHON VENV SHELL
TAKES_run := RATE EVENTS DURATION SEED CSV PLATES SINKS ARGS
TAKES_verify := CSV SINKS ARGS
TAKES_up := SCALE PROFILE ARGS
TAKES_soak := ROUNDS SEED ARGS
TAKES_faults := $(TAKES_soak)
TAKES_bench := QUICK ARGS
$(foreach target,queues entry exit worker writer logs ps clean-data dashboard metrics doctor plugins check test bench-check,\
	$(eval TAKES_$(target) := ARGS))

# Python that says of each variable that is no setting what may be meant; of another's, CARPARK_*, only if that is plain.
define MEANT
import difflib, re, sys
given, taken = (each.split() for each in sys.argv[1:])
settings = re.findall("`CARPARK_([A-Z_]+)`", open("docs/reference/settings.md", encoding="utf-8").read())
known = dict([(each, "CARPARK_" + each) for each in settings] + [(each, each) for each in taken])
for name in given:
    ours, plain = name.startswith("CARPARK_"), re.sub("^CARPARK_|_FILE$$", "", name.upper())
    near = difflib.get_close_matches(plain, settings if ours else known, 1, 0.75 if ours else 0.65)
    if not ours or near and near[0] != plain and not plain.startswith("TEST_"):
        print(name + " (did you mean " + ("CARPARK_" + near[0] if ours else known[near[0]]) + "?)" if near else name)
endef
define NEWLINE


endef
ASK = $(PYTHON) -c 'import sys; exec(sys.argv.pop(1).replace("@", chr(10)))' '$(subst $(NEWLINE),@,$(MEANT))'

GOALS := $(or $(MAKECMDGOALS),$(.DEFAULT_GOAL))
TAKEN := $(foreach goal,$(GOALS),$(TAKES_$(goal)))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
GIVEN := $(filter-out $(TAKES) $(TAKEN),$(GIVEN))
ifneq ($(GIVEN),)
WRONG := $(or $(shell $(ASK) '$(GIVEN)' '$(TAKEN)' 2>/dev/null),$(filter-out CARPARK_%,$(GIVEN)))
ifneq ($(WRONG),)
$(error make $(GOALS) does not take $(WRONG). It takes $(strip $(TAKEN) CARPARK_*); what is for another program stands before make: \
	NAME=value make $(GOALS))
endif
endif

.NOTPARALLEL:
.SUFFIXES:
.PHONY: help run up down logs ps clean-data dashboard metrics doctor plugins verify queues entry exit worker writer setup check test soak faults lint bench bench-check lock sbom clean

##@ Try it
run: $(READY) ## the whole system in one process: no server, no Docker, no root
	@$(BIN)/carpark run $(RUN_FLAGS) $(ARGS)

##@ One service, against the RabbitMQ and Redis that CARPARK_* name
queues: $(READY) ## declare the queues and keep them declared
	@$(BIN)/carpark queues $(ARGS)

entry: $(READY) ## the entry camera: publishes vehicles that arrive
	@$(BIN)/carpark generate entry $(ARGS)

exit: $(READY) ## the exit camera: publishes vehicles that leave
	@$(BIN)/carpark generate exit $(ARGS)

worker: $(READY) ## the backend: joins entries and exits into stays
	@$(BIN)/carpark worker $(ARGS)

writer: $(READY) ## the HTTP server that appends finished stays to the CSV
	@$(BIN)/carpark writer $(ARGS)

##@ Everything in containers: RabbitMQ, Redis, the services, Prometheus, Grafana
up: ## start it and wait until all is healthy
	@$(STACK) up $(call flag,PROFILE,profile) $(call flag,SCALE,scale) $(ARGS)

down: ## stop it; the data stay
	@$(STACK) down

logs: ## follow what it says; ARGS=worker for one service
	@$(STACK) logs $(ARGS)

ps: ## list its containers
	@$(STACK) ps $(ARGS)

clean-data: ## remove what it keeps, after a question
	@$(STACK) clean-data $(ARGS)

##@ Look at it
dashboard: $(READY) ## queues, workers, dead letters and the car park in a browser
	@$(BIN)/carpark dashboard $(ARGS)

metrics: $(READY) ## say where the pages of metrics are, and how to graph them
	@$(BIN)/carpark metrics $(ARGS)

doctor: $(READY) ## check each setting and server, and say what to do
	@$(BIN)/carpark doctor $(ARGS)

plugins: $(READY) ## list the sinks and plate generators that there are
	@$(BIN)/carpark plugins $(ARGS)

verify: $(READY) ## audit the last run: nothing lost, nothing twice
	@$(BIN)/carpark verify $(call flag,CSV,csv) $(call flag,SINKS,sinks) $(ARGS)

##@ Work on it
setup: $(READY) ## make .venv with the pinned dependencies; the other targets do it too
	@:

check: lint ## linter, types and the fast tests, in a minute; needs no server
	@$(BIN)/pytest --numprocesses auto -m "not servers and not slow and not soak" $(ARGS)

test: $(READY) ## all tests, in a quarter of an hour; brings its own RabbitMQ and Redis
	@$(BIN)/python -m tests.support.servers
	@$(BIN)/pytest --numprocesses auto $(ARGS)

soak: $(READY) ## what takes longer: faults, random rounds, order, larger models; at most 45 minutes
	@$(BIN)/python -m tests.support.servers
	@$(BIN)/python -m tests.soak $(call flag,ROUNDS,rounds) $(call flag,SEED,seed) $(ARGS)

faults: $(READY) ## every fault under load, then random rounds; a quarter of an hour
	@$(BIN)/python -m tests.support.servers
	@$(BIN)/python -m tests.faults $(call flag,ROUNDS,rounds) $(call flag,SEED,seed) $(ARGS)

lint: $(READY) ## linter, formatter check, type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) $(BENCH) ## benchmarks beside bare pika, Dramatiq and Celery; QUICK=1 for two or three minutes
	@$(BIN)/python -m tests.support.servers
	@$(BIN)/python -m benchmarks $(if $(strip $(QUICK)),--quick) $(ARGS)

bench-check: $(READY) $(BENCH) ## a quick benchmark; status 1 if a ratio got worse than the committed one
	@$(BIN)/python -m tests.support.servers
	@$(BIN)/python -m benchmarks --quick --check $(ARGS)

lock: $(READY) ## pin the newest dependencies that fit, with hashes, in requirements.lock and its kin
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOCK) --extra dashboard --extra watch --group dev --output-file requirements.lock pyproject.toml
	@$(LOCK) --constraint requirements.lock --extra dashboard --group build --no-emit-package watchdog \
		--output-file deploy/image.lock pyproject.toml
	@$(LOCK) --constraint requirements.lock --group bench --output-file benchmarks/requirements.lock
	@$(LOCK) --constraint requirements.lock --group sbom --output-file deploy/sbom.lock
	@echo "lock: requirements.lock has $$(grep -c == requirements.lock) packages; the next target installs them"

sbom: $(READY) $(SBOM) ## list all packages with versions and hashes (CycloneDX): sbom.json, sbom-image.json
	@for part in requirements.lock:sbom.json deploy/image.lock:sbom-image.json; do \
		PYTHONPATH=$(VENV)/sbom $(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml \
			--mc-type application --output-reproducible --output-file "$${part#*:}" "$${part%:*}" || exit; \
		echo "sbom: $${part#*:} has the $$(grep -c == "$${part%:*}") packages of $${part%:*}"; \
	done

clean: ## remove what the other targets made: .venv, caches, and data/ with its CSV
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info data .run sbom*.json
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: removed .venv, caches and data/"

help: ## this page
	@color=; [ -t 1 ] && [ -z "$$NO_COLOR" ] && [ "$$TERM" != dumb ] && color=yes; \
		awk -v color="$$color" "$$HELP" $(firstword $(MAKEFILE_LIST))

##@ Settings of make run, for example: make run EVENTS=300 RATE=100 SEED=7
##: RATE events per second of each generator
##: EVENTS each generator stops after so many events
##: DURATION seconds until the generators stop
##: SEED the same plates in the same order again
##: CSV the file that gets the summaries
##: PLATES the plate generator; make plugins lists them
##: SINKS who gets the summaries, comma-separated; make plugins lists them

##@ Settings of make up, for example: make up SCALE=4
##: SCALE how many workers; default 1
##: PROFILE minimal leaves out the dashboard, Prometheus and Grafana

##@ Settings of make faults and make soak
##: ROUNDS how many random rounds; SEED draws the same ones again

##@ Settings of make bench
##: QUICK 1 for fewer events and one round

##@ Settings of every target
##: ARGS further options, where a command takes some: make worker ARGS="--processes 2"
##: PYTHON the Python 3.11 or newer that .venv is made with (after make clean, if there is one)
##: CARPARK_* every setting as a variable, CARPARK_RATE=5 for one; make run ARGS=--help lists them

define HELP
function paint(code, text) { return color ? "\033[" code "m" text "\033[0m" : text }
function row(name, text) { print "  " paint("36", name) substr("            ", length(name) + 1) text }
BEGIN { print paint("1", "carpark") ": a car park as a Dramatiq actor system"; print "usage: make TARGET [SETTING=value ...]" }
/^##@ / { print "\n" paint("1", substr($$0, 5)) }
/^##: / { name = $$2; sub(/^##: [^ ]+ /, ""); row(name, $$0) }
/^[a-z-]+:.* ## / { split($$0, part, /:.* ## /); row(part[1], part[2]) }
endef
export HELP

# Celery stays out of the ordinary packages: a folder beside them.
$(BENCH): benchmarks/requirements.lock $(READY)
	@echo "bench: Celery and what it needs into $(VENV)/bench"
	@$(PIP) --require-hashes --upgrade --target $(VENV)/bench -r benchmarks/requirements.lock
	@touch $@

$(SBOM): deploy/sbom.lock $(READY)
	@echo "sbom: CycloneDX and what it needs into $(VENV)/sbom"
	@$(PIP) --require-hashes --upgrade --target $(VENV)/sbom -r deploy/sbom.lock
	@touch $@

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "setup: there is no $(PYTHON); install Python 3.11 or newer, or name it: make setup PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "setup: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another one: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "setup: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "setup: $$($(PYTHON) -V) and $$(grep -c == requirements.lock) pinned packages into $(VENV); takes a minute, once"
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-build-isolation --editable .
	@touch $@
