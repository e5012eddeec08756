"""Compare our networks with segmentation-models-pytorch's and torchvision's, and time the prediction after them.

    python -m benchmarks.models [--height 256 --width 512 --backbones resnet50 --threads 1 --turns 15 --compile]

All networks run eagerly on the same image, once per round, in an order that changes every round. A ratio is the median
of the rounds' ratios, with its 95 % interval, followed by the ratio of the shortest times. With one thread the time is
process CPU time, which other work on the machine disturbs least, else wall time. Ours run in channels_last, as in this
project; the peers in both layouts, of which the faster counts. Where the networks differ, time is divided by MACs, from
the same counter for all. The peers need: pip install 'dlv3p[bench]'.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from functools import partial


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__.splitlines()[0])
    for name, default in (("height", 256), ("width", 512), ("threads", 1), ("turns", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backbones", nargs="+", default=["resnet50"], choices=["resnet50", "resnet101"])
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

import torch
from torch import Tensor, nn
from torch.nn import functional

from cityscapes.errors import require, run_command
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.deeplab import build_model
from dlv3p.models.folding import fold_norms
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.profiling.timing import InterleavedTimes, time_interleaved
from dlv3p.training.activation_checkpointing import checkpoint_activations, saved_bytes
from dlv3p.training.losses import make_chunked_loss, make_loss

CLASSES = 19
OURS = "ours, channels_last"
FOLDED = "ours, channels_last, norms folded"


def networks(backbone: str) -> dict[str, dict[str, Callable[[], nn.Module]]]:
    """Return builders of our network and its peers for each task; ours comes first."""
    require("benchmarks.models", ("segmentation_models_pytorch",), "bench")
    import segmentation_models_pytorch as peers
    from torchvision.models import segmentation

    untrained = {"encoder_name": backbone, "encoder_weights": None, "classes": CLASSES}
    # By default smp uses the rates of stride 8 at 16 too: on a small image their taps are outside, and cost nothing.
    rates = {"decoder_atrous_rates": (6, 12, 18)}
    ours = partial(build_model, backbone=backbone, num_classes=CLASSES)
    torchvision = {}
    if build := getattr(segmentation, f"deeplabv3_{backbone}", None):  # it has few backbones
        torchvision["torchvision"] = partial(build, num_classes=CLASSES, weights_backbone=None)
    return {
        "DeepLabV3, stride 8": {
            "ours": partial(ours, "deeplabv3", output_stride=8),
            **torchvision,
            "smp": partial(peers.DeepLabV3, encoder_output_stride=8, **untrained),
        },
        "DeepLabV3, stride 16": {
            "ours": partial(ours, "deeplabv3", output_stride=16),
            "smp": partial(peers.DeepLabV3, encoder_output_stride=16, **untrained, **rates),
        },
        "DeepLabV3+, stride 16, separable": {
            "ours": partial(ours, "deeplabv3plus", output_stride=16, separable="plain"),
            "smp": partial(peers.DeepLabV3Plus, encoder_output_stride=16, **untrained, **rates),
        },
    }


def time_all(ways: dict[str, Callable[[], object]], options: argparse.Namespace) -> InterleavedTimes:
    """Time every way once in each round, by the clock that suits the number of threads."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    return time_interleaved(ways, warmup=1, repeats=options.turns, clock=clock)


def format_ratio(timings: InterleavedTimes, way: str, over: str) -> str:
    """Format how many times faster `way` is than `over`."""
    speedup = timings.speedup(way, over)
    shortest = min(timings.seconds[over]) / min(timings.seconds[way])
    return f"{speedup.times:.2f} x ({speedup.low:.2f} to {speedup.high:.2f}; by shortest times {shortest:.2f})"


@torch.inference_mode()
def compare_networks(options: argparse.Namespace) -> None:
    """Print times, MACs and ratios of every task."""
    image = torch.randn(1, 3, options.height, options.width, generator=torch.Generator().manual_seed(0))
    layouts = {"": torch.contiguous_format, ", channels_last": torch.channels_last}
    for backbone in options.backbones:
        for task, builds in networks(backbone).items():
            ways: dict[str, Callable[[], object]] = {}
            for name, build in builds.items():
                for word, layout in layouts.items():
                    if name != "ours" or word:
                        model = build().eval().to(memory_format=layout)
                        ways[name + word] = partial(model, image.to(memory_format=layout))
            ways[FOLDED] = partial(fold_norms(ways[OURS].func).to(memory_format=torch.channels_last), *ways[OURS].args)
            timings = time_all(ways, options)
            print(f"\n{task}, {backbone}")
            macs = {name: count_macs(build, options.height, options.width)["total"] for name, build in builds.items()}
            for way in ways:
                name = way.split(",")[0]
                parameters = count_parameters(builds[name]())["total"]
                cost = f"{macs[name] / 1e9:6.1f} GMAC {parameters / 1e6:6.2f} M"
                times = f"{timings.milliseconds(way):7.1f} ms, shortest {1000 * min(timings.seconds[way]):7.1f}"
                print(f"  {way:<34} {times} {cost} {1e9 * timings.milliseconds(way) / macs[name]:7.2f} ps a MAC")
            for way in ways:
                peer = macs[way.split(",")[0]]
                per_mac = f"; {timings.speedup(OURS, way).times * macs['ours'] / peer:.2f} x a MAC"
                if way == OURS:
                    print(f"  folded over {way:<28} {format_ratio(timings, FOLDED, way)}")
                elif way != FOLDED:
                    ratio = format_ratio(timings, OURS, way)
                    print(f"  ours over {way:<30} {ratio}{'' if peer == macs['ours'] else per_mac}")
                    print(f"  folded over {way:<28} {format_ratio(timings, FOLDED, way)}", flush=True)
            del ways
            gc.collect()


@torch.inference_mode()
def compare_predictions(options: argparse.Namespace) -> None:
    """Print the time of `upsample_argmax` against `interpolate` and `argmax`, for random logits of 19 classes."""
    size = (1024, 2048)
    print("\nlogits to labels of 1024 x 2048 pixels, 19 classes")
    for layout in (torch.contiguous_format, torch.channels_last):
        for height, width in ((256, 512), (64, 128)):
            logits = torch.randn(1, CLASSES, height, width, generator=torch.Generator().manual_seed(0))
            logits = logits.to(memory_format=layout)
            plain = partial(_plain_labels, logits, size)
            fused = partial(upsample_argmax, logits, size)
            differing = int((plain() != fused()).sum())
            timings = time_all({"plain": plain, "fused": fused}, options)
            own, others = timings.milliseconds("fused"), timings.milliseconds("plain")
            name = str(layout).removeprefix("torch.").removesuffix("_format")
            print(f"  from {height} x {width}, {name:<13} {own:6.1f} ms against {others:6.1f} ms: ", end="")
            print(f"{format_ratio(timings, 'fused', 'plain')}, {differing} pixels differ", flush=True)


def _plain_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(dim=1)


def compare_memory(options: argparse.Namespace) -> None:
    """Print the memory that a training step keeps for its backward pass: plain, with either switch, and with both."""
    generator = torch.Generator().manual_seed(0)
    size = (2, options.height // 2, options.width // 2)
    image = torch.randn(2, 3, *size[1:], generator=generator)
    mask = torch.randint(0, CLASSES, size, generator=generator)
    print(f"\nkept for the backward pass, DeepLabV3+ on resnet50, 2 x {size[1]} x {size[2]} pixels")
    loss, chunked = make_loss("cross_entropy"), make_chunked_loss("cross_entropy")
    for stride in (16, 8):
        model = build_model("deeplabv3plus", "resnet50", num_classes=CLASSES, output_stride=stride)
        steps = {"plain": lambda: loss(model(image), mask)}  # noqa: B023 - called in the same iteration
        steps["chunked loss"] = lambda: chunked(model.logits_at_stride(image), mask)  # noqa: B023
        counts = {name: saved_bytes(step, model) for name, step in steps.items()}
        checkpoint_activations(model)
        counts["checkpoints"] = saved_bytes(steps["plain"], model)
        counts["both"] = saved_bytes(steps["chunked loss"], model)
        shares = ", ".join(f"{name} {count / counts['plain']:.2f}" for name, count in counts.items())
        print(f"  stride {stride:<3} {counts['plain'] / 2**20:.0f} MiB; {shares}")


@torch.inference_mode()
def compare_compiled(options: argparse.Namespace) -> None:
    """Print the speed of torch.compile with inductor against eager mode; needs a C++ compiler and minutes."""
    image = torch.randn(1, 3, options.height, options.width).to(memory_format=torch.channels_last)
    model = build_model("deeplabv3plus", "resnet50", num_classes=CLASSES).eval().to(memory_format=torch.channels_last)
    compiled = torch.compile(model, fullgraph=True)
    began = time.perf_counter()
    compiled(image)
    first = time.perf_counter() - began
    timings = time_all({"eager": partial(model, image), "compiled": partial(compiled, image)}, options)
    print(
        f"\nDeepLabV3+ on resnet50 compiled as one graph in {first:.0f} s: {timings.milliseconds('compiled'):.0f} ms, "
    )
    print(f"  over eager mode {format_ratio(timings, 'compiled', 'eager')}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested comparisons."""
    options = parse_options(arguments)
    torch.set_num_threads(options.threads)
    clock = "process CPU time" if options.threads == 1 else "wall time"
    print(
        f"{options.height} x {options.width}, {options.threads} thread(s), medians of {options.turns} rounds, {clock}"
    )
    compare_networks(options)
    compare_predictions(options)
    compare_memory(options)
    if options.compile:
        compare_compiled(options)
    return 0


if __name__ == "__main__":
    run_command(main)
