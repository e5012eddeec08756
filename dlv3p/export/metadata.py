"""What the reader of an exported file has to know: how images are prepared, and what the labels mean."""

import json

from dlv3p.data.photometric import MEAN, STD
from dlv3p.evaluation.inference import Predictor


def metadata_of(predictor: Predictor) -> dict[str, str]:
    """Return the entries that an exported file is given, each as JSON.

    An image is resized by `image_scale`, brought to 0 to 1, less `mean` and divided by `standard_deviation`; label
    number n is `class_names[n]`.
    """
    parameters = predictor.parameters
    content = {
        "run": predictor.run,
        "image_scale": parameters.image_scale,
        "mean": MEAN.tolist(),
        "standard_deviation": STD.tolist(),
        "class_names": list(predictor.class_names),
        "output_stride": parameters.output_stride,
    }
    return {name: json.dumps(value) for name, value in content.items()}
