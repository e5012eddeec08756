"""Timings against the alternatives, as ratios within one run; `python -m benchmarks` runs them."""
