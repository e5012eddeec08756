"""Masks from polygons, exactly as the official scripts draw them."""
