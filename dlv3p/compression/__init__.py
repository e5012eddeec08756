"""Smaller networks and what they really gain: pruning, quantization, and the acceptance check that both must pass."""
