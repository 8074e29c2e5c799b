# nmc. Each command does all its set-up on a fresh Debian 12 machine, in a virtual environment in this folder:
#
#   make demo        compile the bundled spiking transformer, emulate it, report       (core packages only)
#   make test        lint, types, import directions, then every test but the slow ones (adds PyTorch)
#   make test-slow   the tests that take minutes each
#   make test-hw     every test of the hardware, the slow ones too
#   make docs        the manual, in docs/_build/html
#   make format      rewrite the sources as ruff would have them
#   make clean       remove what the commands above wrote, the environment included
#
# PYTHON=/path/to/python3.11 chooses the interpreter, VENV=folder the environment, JOBS=0 runs the tests in one process,
# PYTEST_ARGS="-k name" goes to pytest. Packages come from wherever pip is configured to look.

PYTHON ?=
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# One file at a time per process: fixtures of a file are made once. Two processes with two threads each would only queue.
# A process that dies ends the run and is told of: pytest-xdist would start another, and can then wait for ever.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0

.PHONY: demo test lint test-slow test-hw docs format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-core
	$(BIN)/nmc compile examples/digits/model.pt --target loihi2 -o build/digits
	$(BIN)/nmc emulate build/digits --input examples/digits/test.npz
	$(BIN)/nmc report build/digits

# pytest comes last: its closing line is the last line. A test that hangs ends the run and shows where.
test: lint
	export NMC_LAVA_PYTHON="$$(sh tools/peer.sh $(VENV)/lava lava-nc 0.10.0 3.10 "$${NMC_LAVA_PYTHON:-}")" && \
	export NMC_SANAFE_PYTHON="$$(sh tools/peer.sh $(VENV)/sanafe sanafe 2.2.9 3.11 "$${NMC_SANAFE_PYTHON:-}" numpy)" && \
	$(PYTEST) -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-hw: $(VENV)/.installed-dev
	$(PYTEST) -m "slow or not slow" tests/hw tests/neurocore $(PYTEST_ARGS)

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	@echo "the manual: docs/_build/html/index.html"

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build dist docs/_build nmc.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	[ ! -e $(VENV)/pyvenv.cfg ] || rm -rf $(VENV)

# A stamp per set of extras; a changed pyproject.toml installs again.
$(VENV)/.installed-core: pyproject.toml tools/venv.sh
	sh tools/venv.sh $(VENV) $(PYTHON)
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-core tools/hardware.sh tools/browser.sh
	$(INSTALL) -e '.[dev,torch]'
	$(INSTALL) --no-deps sinabs==3.1.3 pbr  # asks for an older nir than nmc, and works with ours
	$(INSTALL) --no-deps neurobench==2.3.0  # its metrics need neither tonic nor what its data sets need
	sh tools/hardware.sh
	sh tools/browser.sh
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-core
	$(INSTALL) -e '.[docs]'
	touch $@
