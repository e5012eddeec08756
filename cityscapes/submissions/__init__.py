"""Submissions to the official server: the rules, building the zip, and checking it."""
