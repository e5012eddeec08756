"""Experiments of many runs: sweeps on one machine or a cluster, their results in one table, and replays."""
