"""Backbones as dilated feature extractors, a family per module."""
