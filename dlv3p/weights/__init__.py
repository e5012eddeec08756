"""Weights files, ours and public ones: read safely, recognized by their names, loaded into our networks."""
