"""The parts of a training run that `dlv3p/train.py` puts together: step, losses, optimizers, progress, checkpoints."""
