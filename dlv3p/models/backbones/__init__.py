"""Backbones, a family a module."""
