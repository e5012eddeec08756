"""Run an exported network without the package that trained it: only onnxruntime, numpy and Pillow are needed.

    python -m dlv3p.export --run RUN --output network.onnx
    python examples/run_exported.py network.onnx image.png labels.png

The labels are a grayscale PNG of class numbers, as large as the image. The network's file describes how images are
prepared, and the names of the classes (`class_names`). Images are read as in training: turned by EXIF, 16-bit gray is
scaled to 8 bits, and CMYK is inverted with the marker of Adobe alone.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageChops, ImageOps

sys.excepthook = lambda kind, error, trace: print(f"{' '.join(sys.argv[1:])}: {error}", file=sys.stderr)  # in a line
usage = "usage: python run_exported.py network.onnx image.png labels.png"
network, source, target = sys.argv[1:4] if len(sys.argv) > 3 else sys.exit(usage)
slow = ["QDQPropagationTransformer"]  # moves pooling into 8 bits, where it takes longer
session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"], disabled_optimizers=slow)
facts, lost = session.get_modelmeta().custom_metadata_map, f"{network}: does not say how images are prepared"
scale, mean, std = (json.loads(facts.get(n) or sys.exit(lost)) for n in ("image_scale", "mean", "standard_deviation"))
image = ImageOps.exif_transpose(Image.open(source, formats=["PNG", "JPEG", "WEBP"]))  # turned as a viewer does
image = Image.fromarray(((np.asarray(image) + 128.0) // 257).astype(np.uint8)) if image.mode[0] == "I" else image
image = (ImageChops.invert(image) if image.mode == "CMYK" and "adobe" not in image.info else image).convert("RGB")
image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)
pixels = (np.asarray(image, np.float32) / 255 - np.float32(mean)) / np.float32(std)
Image.fromarray(session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0][0]).save(target)
