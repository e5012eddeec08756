"""Our networks beside those of segmentation-models-pytorch and torchvision, and what a prediction costs behind them.

    python -m benchmarks.models [--height 256 --width 512 --backbones resnet50 --threads 1 --turns 15 --compile]

All networks run eagerly on the same image, each once a turn, in an order that changes from turn to turn. What stands
side by side was compared within a turn: a ratio is the median of the turns' ratios, with its 95 % interval, and beside
it stands that of the shortest times. With one thread the time is process CPU time, which other work on the machine
disturbs least, else time on the clock. Ours run in channels_last, as they do here; the others in both layouts, of which
the faster counts. Where the networks are not the same, time is divided by MACs, which one counter counts for all. The
others are needed: pip install 'dlv3p[bench]'.
"""

import argparse
import gc
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from cityscapes.errors import run_command
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.deeplab import build_model
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.profiling.timing import Turns, take_turns
from dlv3p.runtime.extras import require
from dlv3p.training.activation_checkpointing import checkpoint_activations, saved_bytes
from dlv3p.training.losses import make_chunked_loss, make_loss

CLASSES = 19
OURS = "ours, channels_last"


def networks(backbone: str) -> dict[str, dict[str, Callable[[], nn.Module]]]:
    """Return ours and its peers for each task, as functions that build them; the first of each is ours."""
    require("benchmarks.models", ("segmentation_models_pytorch",), "bench")
    import segmentation_models_pytorch as peers
    from torchvision.models import segmentation

    untrained = {"encoder_name": backbone, "encoder_weights": None, "classes": CLASSES}
    # By default smp has the rates of stride 8 at 16 too: on a small image their taps lie outside, and cost nothing.
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


def take_all_turns(ways: dict[str, Callable[[], object]], options: argparse.Namespace) -> Turns:
    """Time every way once in each turn, by the clock that suits the number of threads."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    return take_turns(ways, warmup=1, repeats=options.turns, clock=clock)


def told_ratio(turns: Turns, way: str, over: str) -> str:
    """Say how many times faster `way` is than `over`."""
    speedup = turns.speedup(way, over)
    shortest = min(turns.seconds[over]) / min(turns.seconds[way])
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
            turns = take_all_turns(ways, options)
            print(f"\n{task}, {backbone}")
            macs = {name: count_macs(build, options.height, options.width)["total"] for name, build in builds.items()}
            for way in ways:
                name = way.split(",")[0]
                parameters = count_parameters(builds[name]())["total"]
                cost = f"{macs[name] / 1e9:6.1f} GMAC {parameters / 1e6:6.2f} M"
                times = f"{turns.milliseconds(way):7.1f} ms, shortest {1000 * min(turns.seconds[way]):7.1f}"
                print(f"  {way:<28} {times} {cost} {1e9 * turns.milliseconds(way) / macs[name]:7.2f} ps a MAC")
            for way in ways:
                peer = macs[way.split(",")[0]]
                per_mac = f"; {turns.speedup(OURS, way).times * macs['ours'] / peer:.2f} x a MAC"
                if way != OURS:
                    equal = peer == macs["ours"]
                    print(f"  ours over {way:<28} {told_ratio(turns, OURS, way)}{'' if equal else per_mac}", flush=True)
            del ways
            gc.collect()


@torch.inference_mode()
def compare_predictions(options: argparse.Namespace) -> None:
    """Print what `upsample_argmax` takes beside `interpolate` and `argmax`, from random logits of 19 classes."""
    size = (1024, 2048)
    print("\nlogits to labels of 1024 x 2048 pixels, 19 classes")
    for layout in (torch.contiguous_format, torch.channels_last):
        for height, width in ((256, 512), (64, 128)):
            logits = torch.randn(1, CLASSES, height, width, generator=torch.Generator().manual_seed(0))
            logits = logits.to(memory_format=layout)
            plain = partial(_plain_labels, logits, size)
            fused = partial(upsample_argmax, logits, size)
            differing = int((plain() != fused()).sum())
            turns = take_all_turns({"plain": plain, "fused": fused}, options)
            own, others = turns.milliseconds("fused"), turns.milliseconds("plain")
            told = str(layout).removeprefix("torch.").removesuffix("_format")
            print(f"  from {height} x {width}, {told:<13} {own:6.1f} ms beside {others:6.1f} ms: ", end="")
            print(f"{told_ratio(turns, 'fused', 'plain')}, {differing} pixels differ", flush=True)


def _plain_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(dim=1)


def compare_memory(options: argparse.Namespace) -> None:
    """Print what a training step keeps for its backward pass, plainly, with either switch, and with both."""
    generator = torch.Generator().manual_seed(0)
    size = (2, options.height // 2, options.width // 2)
    image = torch.randn(2, 3, *size[1:], generator=generator)
    mask = torch.randint(0, CLASSES, size, generator=generator)
    print(f"\nkept for the backward pass, DeepLabV3+ on resnet50, 2 x {size[1]} x {size[2]} pixels")
    loss, chunked = make_loss("cross_entropy"), make_chunked_loss("cross_entropy")
    for stride in (16, 8):
        model = build_model("deeplabv3plus", "resnet50", num_classes=CLASSES, output_stride=stride)
        steps = {"plain": lambda: loss(model(image), mask)}  # noqa: B023 - called within the round
        steps["chunked loss"] = lambda: chunked(model.logits_at_stride(image), mask)  # noqa: B023
        counts = {name: saved_bytes(step, model) for name, step in steps.items()}
        checkpoint_activations(model)
        counts["checkpoints"] = saved_bytes(steps["plain"], model)
        counts["both"] = saved_bytes(steps["chunked loss"], model)
        shares = ", ".join(f"{name} {count / counts['plain']:.2f}" for name, count in counts.items())
        print(f"  stride {stride:<3} {counts['plain'] / 2**20:.0f} MiB; {shares}")


@torch.inference_mode()
def compare_compiled(options: argparse.Namespace) -> None:
    """Print what torch.compile with inductor gives beside eager mode; it needs a C++ compiler and minutes."""
    image = torch.randn(1, 3, options.height, options.width).to(memory_format=torch.channels_last)
    model = build_model("deeplabv3plus", "resnet50", num_classes=CLASSES).eval().to(memory_format=torch.channels_last)
    compiled = torch.compile(model, fullgraph=True)
    began = time.perf_counter()
    compiled(image)
    first = time.perf_counter() - began
    turns = take_all_turns({"eager": partial(model, image), "compiled": partial(compiled, image)}, options)
    print(f"\nDeepLabV3+ on resnet50 compiled as one graph in {first:.0f} s: {turns.milliseconds('compiled'):.0f} ms, ")
    print(f"  over eager mode {told_ratio(turns, 'compiled', 'eager')}")


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("height", 256), ("width", 512), ("threads", 1), ("turns", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backbones", nargs="+", default=["resnet50"], choices=["resnet50", "resnet101"])
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = "process CPU time" if options.threads == 1 else "time on the clock"
    print(f"{options.height} x {options.width}, {options.threads} thread(s), medians of {options.turns} turns, {clock}")
    compare_networks(options)
    compare_predictions(options)
    compare_memory(options)
    if options.compile:
        compare_compiled(options)
    return 0


if __name__ == "__main__":
    run_command(main)
