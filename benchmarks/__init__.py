"""Timings beside what one would use instead, as ratios within one run; `python -m benchmarks` runs them all."""
