"""Networks leave for other runtimes: as a file, by `python -m dlv3p.export` or from the quantize notebook."""
