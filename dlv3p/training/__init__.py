"""The pieces of a training run; `dlv3p/train.py` puts them to work."""
