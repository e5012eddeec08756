"""Predictions and scores: inference on whole images, metrics, official scores, comparisons of runs."""
