"""The embedded city: streets drawn from a seed, with images and polygons in the layout of Cityscapes."""
