# `make` prints this list. Everything lands in .venv; nothing outside this folder is changed.
PYTHON ?= python3
BIN := .venv/bin
LOCK = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo test check format docs bench prove lock sizes clean
# Somebody else's packages must not leak into ours.
unexport PYTHONPATH PYTHONHOME

help:  ## print this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/make \1	\2/p' Makefile | expand -t 16

install:  ## make .venv from the locked, hashed dependencies (quick when nothing changed)
	@$(PYTHON) tools/install.py

demo: install  ## the whole loop on real flight data, then the console
	@$(BIN)/falaj demo

test: install  ## every test, on as many cores as there are up to 4; ARGS="-k name" for some
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: install  ## format, lint, types, the direction of imports, the budgets
	@$(BIN)/ruff format --check --output-format concise .
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/mypy
	@$(BIN)/mypy tools tests
	@$(BIN)/lint-imports
	@$(BIN)/python tools/budgets.py

format: install  ## put code into the house's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: install  ## the manual as a site, in build/docs
	@$(BIN)/python tools/site.py

bench: install  ## NAME=… runs one measurement; without it, lists them
	@$(BIN)/python tools/scripts.py bench $(NAME) $(ARGS)

prove: install  ## NAME=… runs one long proof; without it, lists them
	@$(BIN)/python tools/scripts.py proofs $(NAME) $(ARGS)

lock: install  ## resolve the dependencies again, keeping versions where possible
	@$(LOCK) --extra demo --group dev --output-file locks/dev.txt
	@$(LOCK) --extra control-plane --constraint locks/dev.txt --output-file locks/control-plane.txt
	@$(LOCK) --extra data-plane --constraint locks/dev.txt --output-file locks/data-plane.txt

sizes: install  ## megabytes of each plane, installed alone
	@$(BIN)/python tools/sizes.py

clean:  ## remove .venv, caches and build outputs; no home is touched
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
