"""Everything a person can type: the options of networks, training, protocols and notebooks; no torch."""
