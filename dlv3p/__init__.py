"""DeepLabV3 and DeepLabV3+: models, data, training, evaluation, profiling and compression behind the notebooks."""
