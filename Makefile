# Each target sets up .venv/ by itself, once. In an environment of your own (conda, mamba): make demo VENV=
VENV = .venv
PYTHON = python3

python = $(if $(VENV),$(VENV)/bin/python,python)
ready = $(if $(VENV),$(VENV)/.ok)

# More threads than this make the embedded city slower, and other counts change the last bits of a result.
demo test test-all: export OMP_NUM_THREADS ?= 2

# A process of its own: after OpenVINO's AMX code has run, a signal to this process has been seen to end it (SIGSEGV).
runtimes = tests/export/test_quantization.py

.PHONY: demo test test-all lint lab bench

demo: $(ready)  ## the whole pipeline on the embedded city, a notebook a stage
	@$(python) -m dlv3p.demo

# The cells of a notebook share a kernel, so notebooks have a process of their own.
notebooks = $(python) -m pytest notebooks --durations=10

# Most tests use one core, so two processes share them out, a file to a process; each computes with one thread.
both_cores = OMP_NUM_THREADS=1 $(python) -m pytest tests -n 2 --dist loadgroup --durations=20 --ignore=$(runtimes)

test: $(ready)  ## every quick test: units, notebooks, command lines
	@$(python) -m pytest $(runtimes)
	@$(notebooks)
	@$(both_cores)

test-all: $(ready)  ## every test, with the slow ones
	@$(python) -m pytest -m "" $(runtimes)
	@$(notebooks)
	@$(both_cores) -m ""

lint: $(ready)  ## style of code and notebooks
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .

lab: $(ready)  ## JupyterLab in notebooks/
	@$(python) -m jupyter lab --notebook-dir=notebooks

bench: $(ready)  ## timings beside the libraries that one would pick instead
	@$(python) -m benchmarks

# uv takes a minute where pip takes four, but knows no pip.conf: whoever uses a mirror gets pip. It leaves no byte
# code unless asked, and where PYTHONDONTWRITEBYTECODE is set every import of torch would compile it anew.
$(VENV)/.ok: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
	    echo "Python 3.11 to 3.14 is needed and '$(PYTHON)' is not: install one and name it, as in: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	    exit 1; }
	@echo "Setting up $(VENV)/, once: some 6 GB, one to five minutes"
	@$(PYTHON) -m venv $(VENV) || { echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@{ $(python) -m pip install --quiet uv && \
	   $(python) -m uv pip install --python $(python) --compile-bytecode --require-hashes -r requirements.lock; } || { \
	   echo "uv could not install; pip goes on, more slowly"; \
	   $(python) -m pip install --progress-bar off --require-hashes -r requirements.lock; }
	@$(python) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@echo "$(VENV)/ is ready"
