"""Smaller networks, and what they really gain: pruning, quantisation, export, and one gate that all three pass."""
