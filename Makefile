# Everything runs from a virtual environment that is made on first use from constraints.txt (exact pins with hashes).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Images of containers often turn bytecode off. Each of the many processes of a test run would then compile all of Airflow.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-long test-fast slow-tests test-min test-spark test-clouds check format bench e2e e2e-celery up clean constraints

help:  ## This list
	@echo "airflow-provider-chatexport: from Stream Chat's export API to Parquet that people query"
	@echo
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it as PYTHON=..."; exit 1; }
	@echo "making $(VENV) from constraints.txt"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# uv installs in seconds what pip installs in a minute; where it cannot be had or cannot reach the index, pip does.
	@grep -A 99 '^uv==' constraints.txt | awk 'NR > 1 && !/^ /{exit} {print}' > $(VENV)/uv.txt
	@($(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt 2>$(VENV)/pip.log \
	  && $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --require-hashes -r constraints.txt 2>>$(VENV)/pip.log) \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . 2>>$(VENV)/pip.log || { cat $(VENV)/pip.log; exit 1; }
	@touch $(READY)

demo: $(READY)  ## Real Airflow exports three days of real chat from the sandbox, and DuckDB queries the result
	@$(BIN)/python scripts/demo.py

# $(call environment,FOLDER,PINS): an environment of its own. PINS has every package of it, so pip gets --no-deps: with
# --require-hashes, older versions of pip take the pin of `x` for none of the `x[extra]` that a dependency asks for.
define environment
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@$(BIN)/python -m uv pip install --quiet --python $(1)/bin/python --require-hashes -r $(2) \
  || $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(2)
endef

# dbt lives apart: its dependencies and Airflow's do not go together.
.venv-dbt/.ready: $(READY) dbt/requirements.txt
	$(call environment,.venv-dbt,dbt/requirements.txt)
	@touch $@

# What is too large for the main environment, too old, or of no use to most who work on this:
# - s3: an S3 server for the tests; readers: a DuckDB with an S3 client of its own
# - docs: the builder of the documentation site; cosmos: Airflow with Astronomer Cosmos; spark: Apache Spark
.venv-s3/.ready .venv-readers/.ready .venv-docs/.ready .venv-cosmos/.ready .venv-spark/.ready: .venv-%/.ready: $(READY) tests/environments/%.txt
	$(call environment,.venv-$*,tests/environments/$*.txt)
	@touch $@

TEST_ENVIRONMENTS := $(READY) .venv-dbt/.ready .venv-s3/.ready .venv-readers/.ready .venv-docs/.ready

test: $(TEST_ENVIRONMENTS)  ## The whole test suite, as CI runs it
	@$(BIN)/python -m pytest -n 4 --dist worksteal

test-long: $(TEST_ENVIRONMENTS)  ## The whole suite, its properties and models with ten times as many examples
	@CHATEXPORT_TEST_EFFORT=10 $(BIN)/python -m pytest -n 4 --dist worksteal --timeout 7200

test-fast: $(READY) .venv-s3/.ready  ## The inner loop: no DAGs, no dbt, and none of the tests in tests/slow.txt
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m 'not slow and not long' tests/core tests/api tests/cli tests/lake

slow-tests: $(TEST_ENVIRONMENTS)  ## Measure each test on a quiet machine, and write tests/slow.txt again
	@rm -f .cache/cpu-seconds && mkdir -p .cache
	@$(BIN)/python -m pytest -n 2 --cpu-seconds $(CURDIR)/.cache/cpu-seconds
	@$(BIN)/python tests/slow_tests.py .cache/cpu-seconds > tests/slow.txt

docs: .venv-docs/.ready  ## The documentation site, in site/; every link between its pages is checked
	@# Not --quiet: it would hide warnings from --strict, too.
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "site/index.html; to browse it: .venv-docs/bin/mkdocs serve"

.venv-min/.ready: $(READY) constraints-min.txt
	$(call environment,.venv-min,constraints-min.txt)
	@.venv-min/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test-min: .venv-min/.ready .venv-dbt/.ready .venv-s3/.ready  ## Unit and DAG suites on the oldest Airflow that is supported
	@.venv-min/bin/python -m pytest -n 4 --dist worksteal tests/airflow tests/api tests/core tests/cli

test-spark: $(READY) .venv-spark/.ready  ## Apache Spark reads a lake; it needs Java 17, and is skipped without
	@$(BIN)/python -m pytest tests/lake/publish/test_spark.py -m ''

# Azure's storage server is a package of npm; it has no wheel.
.venv-clouds/.ready: $(READY) tests/environments/clouds.txt
	$(call environment,.venv-clouds,tests/environments/clouds.txt)
	@npm install --silent --no-fund --no-audit --no-save --prefix .venv-clouds azurite@3.37.0
	@touch $@

test-clouds: .venv-clouds/.ready  ## Lakes at abfs:// and gs://, on servers of this machine; it needs npm
	@$(BIN)/python -m pytest tests/lake/storage/test_clouds.py -m ''

check: $(READY)  ## Lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

format: $(READY)  ## Fix what ruff can fix
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

e2e: $(READY) .venv-dbt/.ready .venv-cosmos/.ready  ## API server, scheduler, triggerer and DAG processor, driven over REST
	@$(BIN)/python -m pytest tests/e2e -v -m ''

# The provider with what workers on several machines need.
.venv-celery/.ready: $(READY) tests/environments/celery.txt
	$(call environment,.venv-celery,tests/environments/celery.txt)
	@.venv-celery/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

e2e-celery: $(READY) .venv-s3/.ready .venv-celery/.ready  ## PostgreSQL, Redis, two Celery workers, two triggerers and an S3 server; WINDOWS=10
	@CHATEXPORT_E2E_WINDOWS=$(or $(WINDOWS),10) $(BIN)/python -m pytest tests/e2e_celery -v -s -m ''

up: $(READY)  ## Airflow's UI on localhost over the sandbox, to click around in
	@$(BIN)/python scripts/up.py

.venv-bench/.ready: $(READY) benchmarks/constraints.txt
	$(call environment,.venv-bench,benchmarks/constraints.txt)
	@touch $@

bench: .venv-bench/.ready  ## Loading, against what people use today, and waiting; MESSAGES=200000,2000000 for the memory curve, AGES=all for old lakes
	@$(BIN)/python benchmarks/run.py --messages $(or $(MESSAGES),200000) --ages $(or $(AGES),young)
	@$(BIN)/python benchmarks/waiting.py

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-annotate --no-header

constraints: $(READY)  ## Pin everything again, from pyproject.toml
	@$(COMPILE) --group dev --all-extras pyproject.toml -o constraints.txt
	@$(COMPILE) --group dev --all-extras -c constraints-min.in pyproject.toml -o constraints-min.txt
	@$(COMPILE) -c constraints.txt docker/sandbox.in -o docker/sandbox.txt
	@# With extras, because users install this file with the pip that they have.
	@$(COMPILE) --no-strip-extras dbt/requirements.in -o dbt/requirements.txt
	@for name in s3 readers docs cosmos spark; do \
	  $(COMPILE) tests/environments/$$name.in -o tests/environments/$$name.txt || exit; done
	@$(COMPILE) -c constraints.txt tests/environments/clouds.in -o tests/environments/clouds.txt
	@$(COMPILE) --extra s3 pyproject.toml tests/environments/celery.in -o tests/environments/celery.txt

clean:  ## Remove the environments, the demo and what tests left
	@rm -rf $(VENV) .venv-* .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis dist site
