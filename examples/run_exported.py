"""Run an exported network without the package that trained it: only onnxruntime, numpy and Pillow are needed.

    python -m dlv3p.export --run RUN --output network.onnx
    python examples/run_exported.py network.onnx image.png labels.png

The labels are a grayscale PNG of class numbers, as large as the image. The network's file describes how images are
prepared, and the names of the classes (`class_names`). Images are read as in training: turned by EXIF, 16-bit gray is
scaled to 8 bits, and CMYK is inverted with the marker of Adobe alone. A network that is not the one whose sha256 lies
beside it, where one does, is refused.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageChops, ImageOps

sys.excepthook = lambda kind, error, trace: print(f"{' '.join(sys.argv[1:])}: {error}", file=sys.stderr)  # in a line
usage = "usage: python run_exported.py network.onnx image.png labels.png"
network, source, target = sys.argv[1:4] if len(sys.argv) > 3 else sys.exit(usage)
slow = ["QDQPropagationTransformer"]  # moves pooling into 8 bits, where it takes longer
content, path = Path(network).read_bytes(), Path(network)
for record in (Path(f"{path}.json"), path.with_name("quantization.json")):  # of an export, and of quantized networks
    told = json.loads(record.read_text()) if record.is_file() else {}
    hashes = told["sha256"].get(path.name) if record.name == "quantization.json" and told else list(told.values())
    if hashes and hashlib.sha256(content).hexdigest() not in hashes:
        sys.exit(f"{network}: its bytes are not those that were written (sha256 differs); export it again")
session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"], disabled_optimizers=slow)
facts, lost = session.get_modelmeta().custom_metadata_map, f"{network}: does not say how images are prepared"
scale, mean, std = (json.loads(facts.get(n) or sys.exit(lost)) for n in ("image_scale", "mean", "standard_deviation"))
image = ImageOps.exif_transpose(Image.open(source, formats=["PNG", "JPEG", "WEBP"]))  # turned as a viewer does
image = Image.fromarray(((np.asarray(image) + 128.0) // 257).astype(np.uint8)) if image.mode[0] == "I" else image
image = (ImageChops.invert(image) if image.mode == "CMYK" and "adobe" not in image.info else image).convert("RGB")
image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)
pixels = (np.asarray(image, np.float32) / 255 - np.float32(mean)) / np.float32(std)
Image.fromarray(session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0][0]).save(target)
