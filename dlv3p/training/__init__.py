"""The pieces of a training run, which `dlv3p/train.py` puts to work: loop, step, losses, optimizers, state."""
