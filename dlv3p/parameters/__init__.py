"""Everything a person can type: the options of networks, training, protocols and notebooks, without torch."""
