"""Masks from polygons, drawn exactly as the official scripts draw them."""
