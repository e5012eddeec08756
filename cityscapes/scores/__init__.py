"""The official scores: counting pixels, averaging, and reading anyone's prediction files."""
