"""The way from a data root to training batches: splits, augmentation, sampling, loading."""
