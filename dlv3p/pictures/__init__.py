"""Visualization: arrays to pictures, tables to figures, frames to animations."""
