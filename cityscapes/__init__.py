"""Cityscapes without torch: label table, polygons to masks, data set layout, submission, and an embedded demo city."""
