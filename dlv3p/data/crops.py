"""The training crops of a run, as its parameters describe them."""

from dlv3p.data.augment import Augmentation
from dlv3p.data.class_regions import class_regions
from dlv3p.data.decoded_cache import DecodedCache
from dlv3p.data.loader import TrainingSamples
from dlv3p.data.sampling import ClassUniform
from dlv3p.data.split import Split
from dlv3p.parameters.training import TrainParameters


def make_samples(parameters: TrainParameters, split: Split) -> TrainingSamples:
    """Return a run's training crops; looks for rare classes and decodes images first where parameters ask for it."""
    uniform, cache, skip_bad = None, None, parameters.on_bad_sample == "skip"
    if parameters.class_uniform:
        regions = class_regions(split, progress=parameters.progress, skip_bad=skip_bad)
        uniform = ClassUniform(regions, share=parameters.class_uniform, seed=parameters.seed)
    if parameters.decoded_cache:
        cache = DecodedCache(split)
        cache.prepare(progress=parameters.progress, skip_bad=skip_bad)
    augmentation = make_augmentation(parameters)
    return TrainingSamples(split, augmentation, seed=parameters.seed, class_uniform=uniform, cache=cache)


def make_augmentation(parameters: TrainParameters) -> Augmentation:
    """Return the augmentation of a run's training crops."""
    return Augmentation(
        parameters.crop_height,
        parameters.crop_width,
        image_scale=parameters.image_scale,
        scale_low=parameters.scale_low,
        scale_high=parameters.scale_high,
        color_jitter=parameters.color_jitter,
        scale_distribution=parameters.scale_distribution,
        blur=parameters.blur,
    )
