"""Scores: inference on whole images, metrics, tables."""
