# Everything a person or a machine does with this checkout; CI calls the same targets.
.DEFAULT_GOAL := help
.PHONY: help setup browser demo check test test-es9 test-slow test-docker lint docs bench soak up down kibana kibana-elsewhere es-up es-down

PYTHON_SOURCES := es_imgsearch tests dev benchmarks docker docs

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make .venv with everything needed, at the versions of constraints.txt
	@dev/setup

browser:  ## Vega, Kibana's query builder and axe-core, for the tests of Kibana's panels and the gallery
	@npm install --prefix tests/browser --no-package-lock --ignore-scripts \
	 --no-audit --no-fund --loglevel=error

demo: setup  ## start Elasticsearch, index real photographs as they are dropped, search them
	@.venv/bin/python dev/demo.py

# Files are spread over two processes, which share one Elasticsearch and one cache of models.
PYTEST := env -u PYTHONDONTWRITEBYTECODE .venv/bin/pytest
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

check: lint  ## style, types, layers, and the tests without Elasticsearch and processes: the inner loop
	@$(PYTEST) $(PARALLEL) -m "not es and not process and not browser and not slow and not docker"

test: setup  ## the test suite, on a real Elasticsearch that it starts itself
	@$(PYTEST) $(PARALLEL) -m "not slow and not docker"

# Contracts with the server and the main jobs; `make test ES_LINE=9` runs everything on 9.
ON_EVERY_LINE := tests/contract $(addprefix tests/e2e/, \
 test_tutorial.py test_find.py test_main_job.py test_verify.py test_filtered_recall.py kibana)

test-es9: setup  ## the tests of contracts with the server, and the main jobs, on Elasticsearch 9.4
	@ES_LINE=9 dev/elasticsearch -V
	@ES_LINE=9 $(PYTEST) $(PARALLEL) -m "es and not slow and not browser" $(ON_EVERY_LINE)

test-slow: setup  ## what needs servers of its own, and the soak of ten minutes
	@IMGSEARCH_TEST_INTERLEAVINGS=$${IMGSEARCH_TEST_INTERLEAVINGS:-1500} $(PYTEST) $(PARALLEL) -m slow
	@$(MAKE) --no-print-directory soak

test-docker: setup  ## build the image and run the containers, where a Docker engine answers
	@$(PYTEST) -m docker tests/e2e/test_in_docker.py

lint: setup  ## style, types and the order of imports
	@.venv/bin/ruff check $(PYTHON_SOURCES)
	@.venv/bin/ruff format --check $(PYTHON_SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports

docs:  ## write docs/reference from the code, then build the documentation as a site
	@dev/setup docs
	@.venv/bin/python dev/reference.py
	@.venv/bin/sphinx-build --quiet --nitpicky --fail-on-warning docs docs/_build
	@echo 'Documentation: docs/_build/index.html'

bench: setup  ## run the benchmarks; each prints a table and writes JSON to benchmarks/results
	@dev/setup bench
	@.venv/bin/python benchmarks/run.py

# SEED, EXAMPLES, STEPS and KILLS make it another, longer or shorter run.
soak: setup  ## random changes and kills against the daemon, for about ten minutes
	@IMGSEARCH_TEST_SEED=$(or $(SEED),1) IMGSEARCH_TEST_EXAMPLES=$(or $(EXAMPLES),60) \
	 IMGSEARCH_TEST_STEPS=$(or $(STEPS),60) IMGSEARCH_TEST_KILLS=$(or $(KILLS),30) \
	 .venv/bin/pytest tests/e2e/test_random_changes.py tests/e2e/test_watch_command.py -k "random or kill"

# IMAGES_DIR says where the pictures are, the first time; docker/.env has what else can be set.
up:  ## start Elasticsearch, Kibana and the service in containers
	@docker/stack up

down:  ## stop these containers; index and keys stay
	@docker/stack down

# SPACE and OVERWRITE=1 say more.
kibana:  ## import the saved objects into the Kibana of `make up`, or into KIBANA_URL
	@if [ -z "$$KIBANA_URL" ] && docker/stack runs; then \
	  docker/stack kibana $(if $(SPACE),--space $(SPACE)) $(if $(OVERWRITE),--overwrite); \
	else \
	  $(MAKE) --no-print-directory kibana-elsewhere; \
	fi

# INDEX says more; where Elasticsearch and Kibana are say the settings.
kibana-elsewhere: setup
	@.venv/bin/es-imgsearch kibana build --index $(or $(INDEX),images) --output .kibana.ndjson
	@.venv/bin/es-imgsearch kibana check .kibana.ndjson --index $(or $(INDEX),images)
	@.venv/bin/es-imgsearch kibana import .kibana.ndjson $(if $(SPACE),--space $(SPACE)) \
	 $(if $(OVERWRITE),--overwrite)

# ES_LINE=9 is 9.4, with data of its own, and is for `make test` and es-down as well.
es-up:  ## start Elasticsearch 8.19 on 127.0.0.1:9200 (data in .elasticsearch)
	@dev/es-up

es-down:  ## stop the Elasticsearch that es-up started
	@dev/es-down
