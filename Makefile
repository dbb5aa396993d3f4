# make test is all a fresh clone needs: the set-up is a dependency of every target.
# Another Python: make PYTHON=python3.12 test
# Something to hand to pytest: make test ARGS="-k grid -x"

BIN := .venv/bin
HEADLESS := scripts/headless.sh
PYTEST := $(HEADLESS) $(BIN)/python -m pytest
ARGS ?=
# How long to fuzz: make fuzz MINUTES=60
MINUTES ?= 10
# An image of yours for the demo: make demo SLIDE=path; a slide, and a georeferenced photo, for the
# pictures of the documentation: make pictures SLIDE=path GEOTIFF=path ARGS="window families"
SLIDE ?=
GEOTIFF ?=

.PHONY: help demo pictures test coverage test-slow test-architectures fuzz soak walk lint format bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       run every strategy on a gigapixel image in the window; pictures, a film, a run and its exports go to demo/"
	@echo "make pictures   the pictures of the documentation again; docs/images/README.md describes them"
	@echo "make test       the tests"
	@echo "make coverage   the same, with the lines that no test covers"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-architectures  the tests of published architectures, with timm, transformers and others in build/architectures"
	@echo "make fuzz       random damage to every kind of file that is opened: make fuzz MINUTES=10"
	@echo "make soak       hundreds of random views with Live on: nothing stale, leaked or growing"
	@echo "make walk       the window used with mouse and keyboard, at every size; pictures of each screen go to build/walk"
	@echo "make lint       ruff, mypy, import contracts, words, structure, the napari manifest"
	@echo "make format     let ruff fix what it can"
	@echo "make bench      list the benchmarks, each with its command"
	@echo "make clean      remove all build products and .venv"

# Set up again when the dependencies may have changed.
.venv/.ready: pyproject.toml constraints.txt scripts/setup.sh scripts/system.sh sample_data/pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@scripts/setup.sh
	@touch $@

demo: .venv/.ready
	$(HEADLESS) $(BIN)/python -m hrviewer.viewer.demo.demo $(if $(SLIDE),"$(SLIDE)")

pictures: .venv/.ready
	$(HEADLESS) $(BIN)/python docs/make_pictures.py --slide "$(SLIDE)" --geotiff "$(GEOTIFF)" $(ARGS)

test: .venv/.ready
	$(PYTEST) -n 2 --dist loadfile $(COVERAGE) $(ARGS)

# Separate: tracing every line takes half as long again.
coverage: COVERAGE := --cov=hrviewer --cov-report=term:skip-covered
coverage: test

test-slow: .venv/.ready
	$(PYTEST) -m slow $(ARGS)

# They ask for torchvision, which pip has for CUDA's torch only: all stay out of .venv.
build/architectures: constraints.txt | .venv/.ready
	rm -rf $@
	$(BIN)/python -m pip install -qq --no-deps -c constraints.txt --target $@ \
		timm torchvision segmentation_models_pytorch monai transformers huggingface_hub tokenizers
	@touch $@

test-architectures: build/architectures
	PYTHONPATH="$(CURDIR)/build/architectures:$$PYTHONPATH" $(BIN)/python -m pytest -m "slow or not slow" \
		tests/models/test_timm.py tests/models/test_timm_vit.py tests/models/test_published_architectures.py tests/models/test_formats.py $(ARGS)

fuzz: .venv/.ready
	$(BIN)/python scripts/fuzz.py --minutes $(MINUTES) $(ARGS)

soak: .venv/.ready
	$(PYTEST) -m soak $(ARGS)

# A screen of twice the resolution has its own process: Qt reads the scale when it starts.
walk: .venv/.ready
	$(PYTEST) -m walk tests/viewer/walk $(ARGS)
	QT_SCALE_FACTOR=2 $(PYTEST) -m walk tests/viewer/walk/test_rooms.py $(ARGS)

lint: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_words.py
	$(BIN)/python scripts/check_structure.py
	$(BIN)/npe2 validate hrviewer

format: .venv/.ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Each file is one measurement; a leading underscore marks shared code.
bench: .venv/.ready
	@for file in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
		echo "$(BIN)/python -m benchmarks.$$(basename $$file .py)"; \
	done

clean:
	rm -rf .venv build dist demo htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
