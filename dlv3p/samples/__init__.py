"""From files to training batches: which samples an epoch has, how each is cut and coloured, and how fast."""
