"""Export a run for other runtimes.

    dlv3p export --run RUN --output network.onnx        (or network.pt2 for torch.export)

The file takes normalized images of any number and size and ends in labels, so that its reader needs neither this
package nor the upsampling: see examples/run_exported.py. An ONNX file says how images are prepared and what the classes
are called. The file and the network predict one image, and a file that disagrees is deleted; the acceptance check in
notebooks/quantize.ipynb compares them on a whole split.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cityscapes.errors import ParameterError, run_command
from cityscapes.files.atomic import check_writable
from cityscapes.files.checksums import write_recorded

FORMATS = (".onnx", ".pt2")
EXAMPLE_SIZE = {"height": 128, "width": 256}
"""The image, in pixels, that a network is traced with; the file takes any size."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a run in the format that the suffix of the output names."""
    parser = argparse.ArgumentParser(prog="dlv3p export", description="Write a network for other runtimes.")
    parser.add_argument("--run", default="", help="folder below saved/; by default the newest")
    parser.add_argument("--checkpoint", default="best", choices=("best", "last"), help="default: best")
    parser.add_argument("--output", required=True, help="network.onnx, or network.pt2 for torch.export")
    options = parser.parse_args(arguments)
    ending = Path(options.output).suffix
    if ending not in FORMATS:
        raise ParameterError(f"--output {options.output}: ends in {ending!r}; allowed are {' and '.join(FORMATS)}")
    from dlv3p.evaluation.inference import load_run_predictor
    from dlv3p.export.agreement import check_export
    from dlv3p.export.graphs import export_onnx, export_program, metadata_of
    from dlv3p.parameters.notebooks import RunParameters

    check_writable(Path(options.output).parent)
    predictor = load_run_predictor(RunParameters(run=options.run, checkpoint=options.checkpoint, device="cpu"))
    how = {"image_scale": predictor.parameters.image_scale, **EXAMPLE_SIZE}
    if ending == ".onnx":
        path = export_onnx(predictor.model, options.output, with_argmax=True, metadata=metadata_of(predictor), **how)
    else:
        path = export_program(predictor.model, options.output, **how)
    agreement = check_export(predictor, path)
    write_recorded(path, path.read_bytes())  # so that a change before it is read again is seen
    print(f"{path}: {path.stat().st_size:,} bytes, of {predictor.checkpoint}")
    if agreement is None:
        print("not compared with the network, which needs onnxruntime: pip install 'dlv3p[export]'")
    else:
        print(f"compared with the network on one image: {agreement:.2%} same pixels")
    return 0


if __name__ == "__main__":
    run_command(main)
