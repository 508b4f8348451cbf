# The one door: people and CI call the same targets. `make` alone lists them.
# It needs a Python 3.11 or 3.12; everything else it fetches into .venv and .cache.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
CACHE := .cache
KAFKA_LIBS := $(CACHE)/kafka/libs
KAFKA_PORT ?= 9092
FLINK_LIBS := $(CACHE)/flink/libs
FLINK_PORT ?= 8081
FLINK_SLOTS ?= 2
PYTEST_ARGS ?=
MESSAGES ?= 200000
SEED ?= 1
MINUTES ?= 2
CHAOS_ARGS ?=

# The environments, each one holding those before it; requirements/<level>.txt is its lock.
LEVELS := base dev test all
EXTRAS_dev := dev
EXTRAS_test := dev train graphs vision bench
# Locks of what images install; they are no level of .venv.
EXTRAS_train := train
EXTRAS_flink := flink

export UV_NO_PROGRESS ?= 1

.PHONY: help
help: ## list the targets
	@if [ -t 1 ] && [ -z "$$NO_COLOR" ]; then on='\033[36m'; off='\033[0m'; fi; \
	awk -F ':.*## ' -v on="$$on" -v off="$$off" \
	  '/^[a-z-]+:.*## / { printf "%s%-12s%s %s\n", on, $$1, off, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- environments ---------------------------------------------------------------------------------

.PHONY: setup setup-all setup-flink
setup: $(VENV)/.level-dev ## install what serves, and the tools to work on it (1 GB)
setup-all: $(VENV)/.level-all kafka-jars ## install everything: torch, Flink, a Kafka broker (7 GB)
setup-flink: $(VENV)/.level-all $(FLINK_LIBS)/.complete ## install the Flink extra, fetch its Kafka connector

$(BIN)/uv: requirements/uv.txt
	@for python in "$$PYTHON" python3.11 python3.12 python3 python; do \
	  [ -n "$$python" ] && "$$python" -c \
	    'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	    2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "streamad needs Python 3.11 or 3.12 with its venv module; none was found on the PATH." >&2; \
	  echo "Install one (on Debian: apt-get install python3.11 python3.11-venv)," >&2; \
	  echo "or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	[ -x $(BIN)/python ] || "$$found" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# One environment grows by levels. What is already there is never taken away: `make demo` after
# `make test` keeps torch. A level's stamp covers those below it.
$(VENV)/.level-%: requirements/%.txt requirements/build.txt pyproject.toml $(BIN)/uv
	@reached=; top=$*; \
	for level in $(LEVELS); do \
	  [ $$level = $* ] && reached=1; \
	  [ -n "$$reached" ] && [ -e $(VENV)/.level-$$level ] && top=$$level; \
	done; \
	echo "installing requirements/$$top.txt into $(VENV)"; \
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/$$top.txt && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps \
	  --build-constraints requirements/build.txt --editable . && \
	for level in $(LEVELS); do \
	  touch $(VENV)/.level-$$level; [ $$level = $$top ] && break; \
	done; true

# --- use ------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.level-base ## see alerts in a minute: a fresh environment, no broker, no torch
	@$(BIN)/streamad demo

.PHONY: kafka-jars kafka-up kafka-down
kafka-jars: $(KAFKA_LIBS)/.complete ## fetch the Kafka broker the tests run against (43 MB)

$(KAFKA_LIBS)/.complete: tests/kafka/pom.xml tests/kafka/jars.sha256 | $(BIN)/uv
	@command -v mvn >/dev/null || { \
	  echo "Kafka's jars come through Maven, and there is no mvn on the PATH" \
	    "(on Debian: apt-get install maven default-jre-headless)" >&2; exit 1; }
	@rm -rf $(KAFKA_LIBS).part
	@mvn --strict-checksums --quiet --batch-mode --no-transfer-progress --file $< dependency:copy-dependencies \
	  -Dstreamad.libs="$(CURDIR)/$(KAFKA_LIBS).part"
	@$(BIN)/python -I streamad/testing/jars.py $(KAFKA_LIBS).part tests/kafka/jars.sha256
	@rm -rf $(KAFKA_LIBS) && mv $(KAFKA_LIBS).part $(KAFKA_LIBS) && touch $@

kafka-up: kafka-jars $(VENV)/.level-base ## start a Kafka broker for you (KAFKA_PORT=9092)
	@$(BIN)/python -m streamad.testing.kafka_broker up --port $(KAFKA_PORT)

kafka-down: $(VENV)/.level-base ## stop it
	@$(BIN)/python -m streamad.testing.kafka_broker down

$(FLINK_LIBS)/.complete: tests/flink/pom.xml tests/flink/jars.sha256 | $(BIN)/uv
	@command -v mvn >/dev/null || { \
	  echo "Flink's Kafka connector comes through Maven, and there is no mvn on the PATH" \
	    "(on Debian: apt-get install maven default-jre-headless)" >&2; exit 1; }
	@rm -rf $(FLINK_LIBS).part
	@mvn --strict-checksums --quiet --batch-mode --no-transfer-progress --file $< dependency:copy-dependencies \
	  -Dstreamad.libs="$(CURDIR)/$(FLINK_LIBS).part"
	@$(BIN)/python -I streamad/testing/jars.py $(FLINK_LIBS).part tests/flink/jars.sha256
	@rm -rf $(FLINK_LIBS) && mv $(FLINK_LIBS).part $(FLINK_LIBS) && touch $@

.PHONY: flink-up flink-down
flink-up: setup-flink ## start a Flink cluster for you (FLINK_PORT=8081 FLINK_SLOTS=2)
	@$(BIN)/python -m streamad.testing.flink up --port $(FLINK_PORT) --slots $(FLINK_SLOTS)

flink-down: $(VENV)/.level-base ## stop it
	@$(BIN)/python -m streamad.testing.flink down

# --- prove ----------------------------------------------------------------------------------------

.PHONY: check check-format check-lint check-types check-imports check-locks check-words
.PHONY: test test-unit test-integration test-flink test-chart chart-tools test-base test-all fuzz bench
check: check-format check-lint check-types check-imports check-locks check-words ## format, lint, types, import directions, locks, words

check-format: $(VENV)/.level-test
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.level-test
	$(BIN)/ruff check .

check-types: $(VENV)/.level-test
	$(BIN)/mypy

check-imports: $(VENV)/.level-test
	$(BIN)/lint-imports --no-logo

check-locks: $(VENV)/.level-test
	$(BIN)/pytest -q tests/unit/test_house.py -k lock

check-words: $(VENV)/.level-test ## plain words in documents and messages
	$(BIN)/pytest -q tests/unit/test_words.py

test: test-unit test-integration ## all tests but Flink's: unit, contract, property, real Kafka

test-unit: $(VENV)/.level-test
	$(BIN)/pytest -m "not integration and not flink and not chart" $(PYTEST_ARGS)

# Without Maven the tests that need a broker skip and say why; in CI that is a failure.
test-integration: $(VENV)/.level-test
	@if command -v mvn >/dev/null; then $(MAKE) --no-print-directory kafka-jars; fi
	$(BIN)/pytest -m integration tests/integration $(PYTEST_ARGS)

test-flink: setup-flink kafka-jars ## Flink's tests: real clusters, killed one process at a time
	STREAMAD_REQUIRE_KAFKA=1 STREAMAD_REQUIRE_FLINK=1 $(BIN)/pytest -m flink tests/flink $(PYTEST_ARGS)

chart-tools: ## build what the chart is tested with: helm, kubeconform and others (needs Go and Maven)
	@sh tests/chart/tools.sh $(CACHE)/chart

test-chart: $(VENV)/.level-test chart-tools kafka-jars ## render, lint and judge the chart, its rules and the images
	STREAMAD_REQUIRE_KAFKA=1 STREAMAD_REQUIRE_CHART=1 $(BIN)/pytest -m chart tests/chart $(PYTEST_ARGS)

test-base: $(BIN)/uv ## prove that the wheel with the base lock alone (no torch) imports and scores
	@rm -rf $(CACHE)/base build/lib && mkdir -p $(CACHE)/base
	@$(BIN)/uv build --quiet --wheel --build-constraints requirements/build.txt --out-dir $(CACHE)/base
	@$(BIN)/uv venv --quiet --python $(BIN)/python $(CACHE)/base/venv
	@$(BIN)/uv pip sync --quiet --python $(CACHE)/base/venv --require-hashes requirements/base.txt
	@$(BIN)/uv pip install --quiet --python $(CACHE)/base/venv --no-deps $(CACHE)/base/*.whl
	@cd $(CACHE)/base && venv/bin/python -I $(CURDIR)/tests/install/base_environment.py

test-all: setup-flink kafka-jars test-base ## everything, with Flink's tests on a JVM
	STREAMAD_REQUIRE_KAFKA=1 STREAMAD_REQUIRE_FLINK=1 $(BIN)/pytest $(PYTEST_ARGS)

fuzz: $(VENV)/.level-test ## feed damaged messages to every decoder (MESSAGES=200000 SEED=1)
	$(BIN)/python tests/fuzz --messages $(MESSAGES) --seed $(SEED)

chaos: $(VENV)/.level-test kafka-jars ## kill, freeze and double processes and broker under load (SEED=1 MINUTES=2)
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(CHAOS_ARGS)

bench: $(VENV)/.level-test ## run the benchmarks of tests/bench, each prints its table
	@for script in tests/bench/*.py; do \
	  [ -e "$$script" ] || { echo "tests/bench holds no benchmark" >&2; exit 1; }; \
	  echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done

# --- keep -----------------------------------------------------------------------------------------

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header $(LOCK_ARGS)
SMALL_LOCK := $(LOCK) --no-annotate --constraints requirements/all.txt

.PHONY: lock
lock: $(BIN)/uv ## resolve anew into requirements/*.txt (LOCK_ARGS=--upgrade takes newer versions)
	$(LOCK) --all-extras pyproject.toml -o requirements/all.txt
	$(SMALL_LOCK) pyproject.toml -o requirements/base.txt
	$(foreach lock,dev test train flink,$(SMALL_LOCK) $(EXTRAS_$(lock):%=--extra %) pyproject.toml \
	  -o requirements/$(lock).txt &&) true
	echo setuptools | $(SMALL_LOCK) - -o requirements/build.txt
	echo uv | $(LOCK) --no-annotate - -o requirements/uv.txt
	@if grep -nE '(https?|file|git[+][a-z]*)://|@ ' requirements/*.txt; then \
	  echo "a lock names a host; only names, versions and hashes may stand in it" >&2; exit 1; fi

.PHONY: docs format clean
docs: $(VENV)/.level-dev ## write the reference pages of docs/, and the chart's schema and README, from what they describe
	@$(BIN)/python -m tests.docs.make
	@$(BIN)/python -m tests.chart.make

format: $(VENV)/.level-dev ## format the code and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

clean: ## delete all that was built, fetched or cached here
	@if [ -e $(CACHE)/kafka/up/broker.pid ]; then $(MAKE) --no-print-directory kafka-down; fi
	@if [ -e $(CACHE)/flink/up/cluster.pid ]; then $(MAKE) --no-print-directory flink-down; fi
	rm -rf $(VENV) $(CACHE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
