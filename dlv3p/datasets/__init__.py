"""Data sets other than Cityscapes: a kind a file, each a `Split`; `dlv3p/data.py` tells which kind a folder is."""
