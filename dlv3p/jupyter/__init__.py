"""Run notebooks: the papermill engine, signals that reach a kernel, and `make demo`."""
