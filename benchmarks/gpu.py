"""Measure training and prediction on an NVIDIA GPU, unattended, and write one JSON file.

    python -m benchmarks.gpu [--output gpu.json] [--backbone resnet50 --batch 8 --crop 768 --turns 9]

Training: the step of a run, in float32 and bfloat16, against the plainest loop, whose float32 convolutions round to
TF32, as torch does by default, or not; crops per second, peak memory, and the share of a step without a kernel.
Determinism: the loss after some steps, taken twice, to the bit, with and without torch's deterministic algorithms, and
what they cost. Prediction: an image of 1024 x 2048 at output stride 16 and 8, exact, with norms folded, and compiled,
from an image on the device to its logits at full size; joules an image where NVML can be read (extra `energy`).

A part that fails says why in its place, and the others are measured. `--device cpu` tries the benchmark itself on a
machine without a GPU, with small sizes; its times say nothing of a GPU.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="default: gpu.json")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--backbone", default="resnet50")
    sizes = (("batch", 8), ("crop", 768), ("height", 1024), ("width", 2048), ("turns", 9), ("threads", 4))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

import torch
from torch import nn

from benchmarks.models import CLASSES
from benchmarks.training import RUN, Bench, Optimizations, Step
from cityscapes.errors import UserError, run_command
from cityscapes.files.atomic import write_text
from dlv3p.models.deeplab import DeepLab, build_model
from dlv3p.models.folding import fold_norms
from dlv3p.parameters.training import TrainParameters
from dlv3p.profiling.counters import NotMeasurable
from dlv3p.profiling.energy import measure_energy, open_counter
from dlv3p.profiling.latency import measure_latency, prepare, random_images
from dlv3p.profiling.machine import load, machine
from dlv3p.profiling.timing import clock_of, time_call
from dlv3p.runtime.devices import choose_device

STEPS = 5
"""Steps after which two losses are compared."""


@contextmanager
def rounding(float32: str) -> Iterator[None]:
    """Have the convolutions of float32 round their inputs: tf32, or ieee for not at all."""
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = float32
    try:
        yield
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


def rounded(step: Step, float32: str) -> Step:
    """Return a step whose convolutions round so."""

    def run() -> float:
        with rounding(float32):
            return step()

    return run


def measure_training(bench: Bench, build: Callable[[], DeepLab], *, compiled: bool) -> dict[str, Any]:
    """Return crops per second, gain over the plain loop, and cost of each kind of step."""
    ours = {"ours, float32": RUN, "ours, bfloat16": _changed(precision="bfloat16")}
    if compiled:
        ours["ours, bfloat16, compiled"] = _changed(precision="bfloat16", compile=True)
    steps = {"plain, TF32": rounded(bench.plain_step(build, Optimizations()), "tf32")}
    steps["plain, float32"] = rounded(bench.plain_step(build, Optimizations()), "ieee")
    steps |= {name: rounded(bench.our_step(parameters, build), "tf32") for name, parameters in ours.items()}
    timings = bench.time(steps)
    found = {}
    for name, step in steps.items():
        gain = timings.speedup(name, "plain, TF32")
        found[name] = {
            "crops_per_second": 1000 * bench.options.batch / timings.milliseconds(name),
            "over_plain_tf32": [gain.times, gain.low, gain.high],
        } | (bench.cost_on_gpu(step) if bench.device.type == "cuda" else {})
    return found


def measure_determinism(bench: Bench, build: Callable[[], DeepLab]) -> dict[str, Any]:
    """Return for either setting whether a loss comes out the same twice, and what a step takes."""
    found, before = {}, torch.are_deterministic_algorithms_enabled()
    try:
        for name, strict in (("as in a run", False), ("deterministic algorithms", True)):
            torch.use_deterministic_algorithms(strict, warn_only=True)
            losses = []
            for _ in range(2):
                step = bench.our_step(RUN, build)
                losses.append([step() for _ in range(STEPS)])
            clock = clock_of(bench.device)
            times = sorted(time_call(step, clock) for _ in range(bench.options.turns))
            found[name] = {"equal_twice": losses[0] == losses[1], "milliseconds": times[len(times) // 2]}
    finally:
        torch.use_deterministic_algorithms(before)
    return found


def measure_prediction(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return the latency of each way to predict an image, and the energy of the fastest at either stride."""
    found: dict[str, Any] = {}
    for stride in (16, 8):
        exact = build_model("deeplabv3plus", options.backbone, num_classes=CLASSES, output_stride=stride).eval()
        ways = {"exact": (exact, False), "folded": (fold_norms(exact), False)}
        if not options.no_compile:
            ways["folded, compiled"] = (ways["folded"][0], True)
        for precision in ("float32", "bfloat16"):
            dtype = getattr(torch, precision)
            for name, (network, compiled) in ways.items():
                measured = measure_latency(
                    network, height=options.height, width=options.width, device=device, dtype=dtype,
                    compiled=compiled, repeats=options.turns,
                )  # fmt: skip
                row = {"p10_ms": measured.p10_ms, "p50_ms": measured.p50_ms, "p90_ms": measured.p90_ms}
                found[f"stride {stride}, {precision}, {name}"] = row
        found[f"stride {stride}, bfloat16, folded"] |= _energy(ways["folded"][0], options, device)
    return found


def _energy(network: nn.Module, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    network = prepare(network, device, torch.bfloat16)
    image = random_images(network, 1, options.height, options.width, device, torch.bfloat16)
    clock = clock_of(device)

    @torch.inference_mode()
    def predict() -> None:
        network(image)
        clock.wait()

    try:
        return measure_energy(predict, open_counter(device), images=1).as_dict()
    except NotMeasurable as reason:
        return {"energy_status": f"not measured: {reason}"}


def _changed(**changes: Any) -> TrainParameters:
    return TrainParameters.from_mapping({**RUN.as_dict(), **changes})


def measured(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a part measures, or why it failed, so that the parts after it are measured."""
    try:
        return part()
    except (RuntimeError, UserError) as error:  # out of memory, a compiler that is missing, an operator that is
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all parts, write the file after each, and print where it is."""
    options = parse_options(arguments)
    options.height, options.width, image = options.crop, options.crop, (options.height, options.width)
    device = choose_device(options.device)
    torch.set_num_threads(options.threads)
    bench, build = Bench(options), partial(build_model, "deeplabv3plus", options.backbone, num_classes=CLASSES)
    sizes = argparse.Namespace(**{**vars(options), "height": image[0], "width": image[1]})
    parts = {
        "training": partial(measure_training, bench, build, compiled=not options.no_compile),
        "determinism": partial(measure_determinism, bench, build),
        "prediction": partial(measure_prediction, sizes, device),
    }
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(sizes).items()}
    found: dict[str, Any] = {"machine": machine(), "load": load(), "settings": settings}
    for name, part in parts.items():
        print(name, flush=True)
        found[name] = measured(part)
        write_text(options.output, json.dumps(found, indent=2) + "\n")
    print(options.output)
    return 0


if __name__ == "__main__":
    run_command(main)
