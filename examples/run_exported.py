"""Run an exported network without the package that trained it: only onnxruntime, numpy and Pillow are needed.

    python -m dlv3p.export --run RUN --output network.onnx
    python examples/run_exported.py network.onnx image.png labels.png

The labels are a grayscale PNG of class numbers, as large as the image. The network's file describes how images are
prepared, and the names of the classes (`class_names`).
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageChops, ImageOps

if len(sys.argv) < 4:
    sys.exit("usage: python run_exported.py network.onnx image.png labels.png")
network, source, target = sys.argv[1:4]
slow = ["QDQPropagationTransformer"]  # moves pooling into 8 bits, where it takes longer
session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"], disabled_optimizers=slow)
metadata = session.get_modelmeta().custom_metadata_map or sys.exit(f"{network}: does not say how images are prepared")
scale, mean, deviation = (json.loads(metadata[name]) for name in ("image_scale", "mean", "standard_deviation"))
stored = Image.open(source)
image = ImageOps.exif_transpose(stored)  # as a viewer shows it, like the images that the network was trained on
if image.mode.startswith("I"):  # 16-bit gray, scaled to 8 bits
    image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
if image.mode == "CMYK" and "adobe" not in stored.info:  # Pillow takes all CMYK as inverted; only Adobe's is
    image = ImageChops.invert(image)
image = image.convert("RGB")
image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)
pixels = (np.asarray(image, np.float32) / 255 - np.float32(mean)) / np.float32(deviation)
(labels,) = session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})
Image.fromarray(labels[0]).save(target)
