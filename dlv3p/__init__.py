"""DeepLabV3 and DeepLabV3+: models, data, training, evaluation and profiling behind the notebooks."""
