"""Run an exported network without the package that trained it: only onnxruntime, numpy and Pillow are needed.

    python -m dlv3p.export --run RUN --output network.onnx
    python examples/run_exported.py network.onnx image.png labels.png

The labels are a grayscale PNG of class numbers, as large as the image. The network's file describes how images are
prepared, and the names of the classes (`class_names`). Images are read as in training: turned by EXIF, 16-bit gray is
scaled to 8 bits, and CMYK is inverted with the marker of Adobe alone. Where the training data stated other channels
than RGB (`pixels`), stored values count; TIFF files then need tifffile. A network that is not the one whose sha256 lies
beside it, where one does, is refused.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageChops, ImageOps


def channels(path: str, rule: dict) -> list[Image.Image]:
    """Return the channels of an image, whose values are shares of the range that the training data stated."""
    content, count, (low, high) = Path(path).read_bytes(), rule["channels"], rule["value_range"]
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        import tifffile

        values = np.atleast_3d(tifffile.imread(path))
        values = np.moveaxis(values, 0, 2) if values.shape[2] != count == values.shape[0] else values
    else:
        image = Image.open(path, formats=["PNG", "JPEG"])
        if image.mode in ("P", "PA", "1") or (content[1:4] == b"PNG" and content[24] == 16 and image.mode[0] != "I"):
            sys.exit(f"{path}: its values are not read here as they are stored; store it as TIFF")
        values = np.atleast_3d(np.asarray(ImageOps.exif_transpose(image)))
    if values.shape[2] != count:
        sys.exit(f"{path}: has {values.shape[2]} channels, and the network takes {count}")
    shares = ((values.astype(float) - low) / (high - low)).clip(0, 1).astype(np.float32)
    return [Image.fromarray(np.ascontiguousarray(shares[..., index])) for index in range(count)]


def rgb(path: str) -> Image.Image:
    """Return an image in 8 bits of red, green, and blue, turned as a viewer does."""
    image = ImageOps.exif_transpose(Image.open(path, formats=["PNG", "JPEG", "WEBP"]))
    image = Image.fromarray(((np.asarray(image) + 128.0) // 257).astype(np.uint8)) if image.mode[0] == "I" else image
    return (ImageChops.invert(image) if image.mode == "CMYK" and "adobe" not in image.info else image).convert("RGB")


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
facts = session.get_modelmeta().custom_metadata_map
lost, names = f"{network}: does not say how images are prepared", ("image_scale", "mean", "standard_deviation")
rule = json.loads(facts.get("pixels", "null"))
scale, *normal = (json.loads(facts.get(name) or sys.exit(lost)) for name in (names[:1] if rule else names))
mean, std = (rule["mean"], rule["deviation"]) if rule else normal
(low, high), layers = (rule["value_range"], channels(source, rule)) if rule else ((0, 1), rgb(source).split())
size = [max(1, round(length * scale)) for length in layers[0].size]
shares = np.stack([np.asarray(layer.resize(size, Image.Resampling.BILINEAR)) for layer in layers])
values = shares / np.float32(1 if rule else 255) * np.float32(high - low) + np.float32(low)
pixels = (values - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]
Image.fromarray(session.run(None, {"image": pixels[None]})[0][0]).save(target)
