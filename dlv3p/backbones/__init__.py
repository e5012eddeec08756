"""Feature extractors: a family a file, and `catalog.py`, which names them all."""
