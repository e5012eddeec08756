# Each target sets up .venv/ once, when needed. In an environment of your own (conda, mamba): make demo VENV=
VENV = .venv
PYTHON = python3

python = $(if $(VENV),$(VENV)/bin/python,python)
ready = $(if $(VENV),$(VENV)/.ok)

# The commands of the README, such as papermill, are found only in an environment that is active.
say_how_to_activate = $(if $(VENV),echo "$(VENV)/ holds papermill and dlv3p; activate it in each terminal: source $(VENV)/bin/activate",true)

# More threads slow the embedded city down, and any other number changes the last bits of a result.
demo gallery test test-all: export OMP_NUM_THREADS ?= 2

# In a process of its own: after OpenVINO's AMX code has run, a signal has been seen to crash the process (SIGSEGV).
runtimes = tests/export/test_quantization.py

.PHONY: demo gallery test test-all lint lab bench

demo: $(ready)  ## the whole pipeline on the embedded city, one notebook per stage
	@$(python) -m dlv3p demo
	@$(say_how_to_activate)

gallery: $(ready)  ## all notebooks, executed, as HTML pages in outputs/gallery/
	@$(python) -m dlv3p gallery

# The cells of a notebook share a kernel, so two processes share whole notebooks; threads that wait leave the cores to
# the other one at once.
notebooks = GOMP_SPINCOUNT=0 $(python) -m pytest notebooks -n 2 --dist loadfile --durations=10

# Most tests use one core, so two processes share the test files, with one thread each; the tests of a file share what
# is expensive to set up, so a file stays in one process. Files are taken by name, those of the browser among the first:
# xdist would leave files of few tests for the end, where a long one lets the other process wait.
both_cores = OMP_NUM_THREADS=1 $(python) -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder --durations=20 \
	--ignore=$(runtimes)

test: $(ready)  ## all quick tests: units, notebooks, command lines
	@$(python) -m pytest $(runtimes)
	@$(notebooks)
	@$(both_cores)

test-all: $(ready)  ## all tests, including the slow ones
	@$(python) -m pytest -m "" $(runtimes)
	@$(notebooks)
	@$(both_cores) -m ""

lint: $(ready)  ## check the style of code and notebooks
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .

# Jupyter refuses to run as root, as most containers do, unless it is asked to.
as_root = $(if $(filter 0,$(shell id -u)),--allow-root)

# Notebooks that only name their kernel are not shown as changed when they are opened; messages break at spaces.
opened = --ServerApp.contents_manager_class=dlv3p.jupyter.opened_notebooks.OpenedNotebooks --LabApp.custom_css=True

lab: $(ready)  ## open JupyterLab in notebooks/
	@$(python) -m jupyter lab --notebook-dir=notebooks $(opened) $(as_root)

bench: $(ready)  ## time the packages against the libraries that one might use instead
	@$(python) -m benchmarks

# uv takes a minute where pip takes four, but ignores pip.conf, so behind a mirror pip takes over. uv compiles no
# bytecode unless asked, and with PYTHONDONTWRITEBYTECODE set, every import of torch would compile it again.
$(VENV)/.ok: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
	    echo "'$(PYTHON)' is not Python 3.11 to 3.14: install one of these and name it, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	    exit 1; }
	@echo "Setting up $(VENV)/ once: about 6 GB, one to five minutes"
	@$(PYTHON) -m venv $(VENV) || { echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@{ $(python) -m pip install --quiet uv && \
	   $(python) -m uv pip install --python $(python) --compile-bytecode --require-hashes -r requirements.lock; } || { \
	   echo "uv could not install the packages; trying pip, which is slower"; \
	   $(python) -m pip install --progress-bar off --require-hashes -r requirements.lock; }
	@$(python) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@echo "$(VENV)/ is ready"
	@$(say_how_to_activate)
