"""Run an exported network without the package that trained it: onnxruntime, numpy and Pillow are all that it needs.

    python -m dlv3p.export --run RUN --output network.onnx
    python examples/run_exported.py network.onnx image.png labels.png [image_scale]

The labels are a grey PNG of class numbers, as large as the image. `image_scale` is that of the training, 1 by default.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

network, source, target, scale = [*sys.argv[1:], "1"][:4]
image = Image.open(source).convert("RGB")
if float(scale) != 1:
    size = [max(1, round(length * float(scale))) for length in image.size]
    image = image.resize(size, Image.Resampling.BILINEAR)
pixels = np.asarray(image, np.float32) / 255
pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
slow = ["QDQPropagationTransformer"]  # moves pooling into 8 bits, where it takes longer
session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"], disabled_optimizers=slow)
(labels,) = session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})
Image.fromarray(labels[0]).save(target)
