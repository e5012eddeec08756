"""The embedded city: street scenes drawn from a seed, with images and polygons in the layout of Cityscapes."""
