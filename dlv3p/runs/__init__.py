"""Run folders: what a run records, and how it is checked."""
