"""From a data root to batches: splits, augmentation, sampling, loading."""
