# The only commands a contributor needs; `make` alone lists them.
# They work from a clean clone with Python 3.11 to 3.13, make and a C compiler, and keep everything in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
MODEL := smollm2
ENCODER := minilm
NATIVE := $(wildcard src/bestiary/kernels/native/*.[ch])

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help chat test check bench docs size nightly clean

help:
	@echo "make chat [PROMPT=\"...\"]  talk to the default model, or ask one question"
	@echo "make test                 run every test"
	@echo "make check                lint, types, and the rules of this repository"
	@echo "make bench                measure beside llama.cpp, transformers and CTranslate2 (slow: builds llama.cpp)"
	@echo "make docs                 write what is derived: docs/cli.md, docs/families.md, the shapes of checkpoints"
	@echo "make size                 count the lines of each package"
	@echo "make nightly              run the tests that take too long for every change"
	@echo "make clean                remove everything made here, .venv too; pulled models stay"
	@echo
	@echo "PYTHON=python3.12 picks the interpreter; pip's own variables (PIP_INDEX_URL, ...) hold."

# A prompt may hold any character. $(value) keeps make from expanding it, and the environment keeps the shell from
# reading it. Only what was typed after `make chat` counts: some shells export a PROMPT of their own.
ifeq ($(origin PROMPT),command line)
override PROMPT := $(value PROMPT)
export PROMPT
ASK := --prompt="$$PROMPT"
endif

chat: $(VENV)/.run
	@$(BIN)/bestiary pull $(MODEL)
	@$(BIN)/bestiary chat $(MODEL) $(ASK)

# Tests open no connection. Without a model those that need it are left out, and the last lines say so.
test: $(VENV)/.test
	@for model in $(MODEL) $(ENCODER); do \
	    $(BIN)/bestiary pull $$model || echo "$$model could not be had: the tests that need it are left out."; done
	$(BIN)/python -m pytest -n auto --dist loadfile
	@echo "Again, what must hold when assert is compiled out:"
	$(BIN)/python -O -m pytest -q -m optimised

check: $(VENV)/.dev
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests tools
	$(BIN)/python -m tools.check

bench: $(VENV)/.bench
	@$(BIN)/bestiary pull $(MODEL)
	@$(BIN)/bestiary pull $(ENCODER)
	$(BIN)/python bench/cpu.py
	$(BIN)/python bench/encode.py

docs: $(VENV)/.run
	$(BIN)/python -m tools.shapes
	$(BIN)/python -m tools.cli_docs
	$(BIN)/python -m tools.families

size:
	@$(PYTHON) -m tools.size

# Each test may take half an hour, and hypothesis draws new examples.
nightly: $(VENV)/.test
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[test,ray]"
	@$(BIN)/bestiary pull $(MODEL)
	$(BIN)/python -m pytest -m nightly --hypothesis-profile=nightly -o faulthandler_timeout=1800
	$(BIN)/python -m tools.page_check

clean:
	rm -rf $(VENV) build dist src/bestiary.egg-info src/bestiary/kernels/_native.so
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# One stamp for each set of packages: a second `make` starts at once, and a changed C file or pin installs again.
# A larger set holds the smaller ones.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit( \
	    "Bestiary needs Python 3.11 to 3.13 and this is %d.%d. Name one: make PYTHON=python3.12 ..." % v[:2])'
	@echo "==> Making $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@touch $@

# llama.cpp as pip builds it, for this very processor; but where there is AMX it crashes (docs/log.md), so there it is
# built with everything else that such a processor has.
AMX := $(shell grep -m1 -o amx_tile /proc/cpuinfo 2>/dev/null)
LESS_AMX := NATIVE=OFF AVX512=ON AVX512_VBMI=ON AVX512_VNNI=ON AVX512_BF16=ON AVX_VNNI=ON
LLAMA_CPP = $(if $(AMX),CMAKE_ARGS="$(LESS_AMX:%=-DGGML_%)") $(PIP) install -c constraints.txt \
    $(if $(AMX),--no-cache-dir --no-binary llama-cpp-python) llama-cpp-python

$(VENV)/.run: EXTRAS :=
$(VENV)/.test: EXTRAS := [test]
$(VENV)/.dev: EXTRAS := [dev]
$(VENV)/.bench: EXTRAS := [bench]
$(VENV)/.test $(VENV)/.bench: HELD := $(VENV)/.run
$(VENV)/.dev: HELD := $(VENV)/.run $(VENV)/.test
$(VENV)/.run $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: pyproject.toml setup.py constraints.txt $(NATIVE) | $(VENV)/.made
	@echo "==> Installing bestiary$(EXTRAS) into $(VENV)"
	$(PIP) install -c constraints.txt setuptools
	$(if $(filter %/.bench,$@),$(LLAMA_CPP))
	$(PIP) install -c constraints.txt --no-build-isolation -e ".$(EXTRAS)"
	@test -e src/bestiary/kernels/_native.so || $(BIN)/python setup.py --quiet build_ext --inplace # says what failed
	@touch $@ $(HELD)
