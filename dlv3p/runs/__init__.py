"""Run folders, `saved/<run>/`: what a run records, how it is found again, and how it is checked."""
