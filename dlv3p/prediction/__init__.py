"""Prediction on images and videos of any kind, without masks and without the layout of a data set."""
