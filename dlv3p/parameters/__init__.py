"""The parameters of networks, training, protocols and notebooks, without torch."""
