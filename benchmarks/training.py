"""A training step of ours beside those of segmentation-models-pytorch and torchvision, and what each means gives.

    python -m benchmarks.training [--backbone resnet18 --batch 2 --height 192 --width 192 --threads 1 --turns 5]

A step is forward, loss, backward and optimizer, on the same crops; its end is the loss on the host. Ours is the step of
a run: channels_last, a fused optimizer, our losses. Theirs is the plainest loop, as their examples have it, and the
same loop in channels_last. Steps are timed in turns whose order changes, and compared turn by turn: a ratio is the
median of the turns' ratios, with its 95 % interval. Where networks are not the same, the ratio is given per MAC, too.
With one thread on a CPU the time is process CPU time, which other work on the machine disturbs least, else time on the
clock. On a GPU it is also told what memory a step takes at its peak, above what lies there between steps, and in which
share of its time no kernel computes. The others are needed: pip install 'dlv3p[bench]'.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models import CLASSES, networks
from cityscapes.errors import DivergedError, run_command
from cityscapes.labels import IGNORE
from dlv3p.evaluation.metrics import confusion_matrix
from dlv3p.models.anatomy import count_macs
from dlv3p.models.deeplab import DeepLab, build_model
from dlv3p.parameters.training import TrainParameters
from dlv3p.profiling.timing import Turns, take_turns
from dlv3p.runtime.devices import LAYOUT, choose_device
from dlv3p.training.losses import make_chunked_loss, make_loss
from dlv3p.training.optimizers import make_optimizer
from dlv3p.training.step import build_loss, build_stepper

Step = Callable[[], float]


@dataclass(frozen=True)
class Means:
    """What may make a step faster; the defaults are the plainest loop."""

    precision: str = "float32"
    channels_last: bool = False
    fused: bool = False
    chunked_loss: bool = False
    compile: bool = False


OURS = Means(channels_last=True, fused=True)


class Bench:
    """The crops of one batch, where they are computed, and how steps on them are timed."""

    def __init__(self, options: argparse.Namespace) -> None:
        generator = torch.Generator().manual_seed(0)
        size = (options.batch, options.height, options.width)
        self.options, self.device = options, choose_device(options.device)
        self.image = torch.randn(size[0], 3, *size[1:], generator=generator).to(self.device)
        mask = torch.randint(0, CLASSES, size, generator=generator)
        mask[:, :: options.height // 8] = IGNORE
        self.mask = mask.to(self.device)
        alone = self.device.type == "cpu" and options.threads == 1
        self.clock = time.process_time if alone else time.perf_counter

    def our_step(self, parameters: TrainParameters, build: Callable[[], DeepLab]) -> Step:
        """Build one of our networks and return a step of a run with these parameters, as `dlv3p.train` takes it.

        Batches come from the loader on the host; here they lie on the device already, as those of the others do.
        """
        torch.manual_seed(0)
        model = build().to(self.device, memory_format=LAYOUT).train()
        rate = {"learning_rate": parameters.learning_rate, "backbone_rate_factor": parameters.backbone_rate_factor}
        optimizer = make_optimizer(model, name=parameters.optimizer, weight_decay=parameters.weight_decay, **rate)
        stepper = build_stepper(parameters, model, build_loss(parameters, None), optimizer, self.device)
        confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64, device=self.device)

        def step() -> float:
            result = stepper(self.image, self.mask, rate=1.0, step=0)
            if not math.isfinite(result.loss) or not math.isfinite(result.gradient_norm):
                raise DivergedError("the benchmark's network has diverged; take another size")
            confusion.add_(confusion_matrix(self.mask, result.prediction, CLASSES))
            return result.loss

        return step

    def plain_step(self, build: Callable[[], nn.Module], means: Means, *, losses: str = "theirs") -> Step:
        """Build a network and return the step of a plain loop; `losses` of "ours" are those of this suite."""
        torch.manual_seed(0)
        layout = torch.channels_last if means.channels_last else torch.contiguous_format
        model = build().to(self.device, memory_format=layout).train()
        image = self.image.to(memory_format=layout)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=means.fused or None
        )
        theirs = partial(functional.cross_entropy, ignore_index=IGNORE)
        loss = make_loss("cross_entropy") if losses == "ours" else theirs
        forward: Callable[[Tensor], Tensor] = model
        if means.chunked_loss:
            loss, forward = make_chunked_loss("cross_entropy"), model.logits_at_stride
        if means.compile:
            forward = torch.compile(forward)
        low = means.precision != "float32"

        def step() -> float:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                logits = forward(image)
            logits = logits["out"] if isinstance(logits, dict) else logits
            value = loss(logits.float(), self.mask)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            return value.item()

        return step

    def turns(self, steps: dict[str, Step]) -> Turns:
        """Time all steps in turns."""
        return take_turns(steps, warmup=1, repeats=self.options.turns, clock=self.clock)

    def cost(self, step: Step) -> str:
        """Say what memory a step takes and in which share of its time no kernel computes; "" on a CPU."""
        if self.device.type != "cuda":
            return ""
        torch.cuda.reset_peak_memory_stats()
        before, began = torch.cuda.memory_allocated(), self.clock()
        step()
        seconds = self.clock() - began
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
        busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
        return f", peak {peak:.0f} MiB, {max(0.0, 1 - busy / seconds):.0%} of the step without a kernel"


def compare_libraries(bench: Bench) -> None:
    """Print our step beside that of each library, for every network that both have and every precision."""
    options = bench.options
    for task, builds in networks(options.backbone).items():
        macs = {name: count_macs(build, options.height, options.width)["total"] for name, build in builds.items()}
        for precision in options.precisions:
            ours = TrainParameters(optimizer="sgd", learning_rate=1e-3, weight_decay=1e-4, precision=precision)
            steps = {"ours": bench.our_step(ours, builds["ours"])}
            for name in list(builds)[1:]:
                for words, means in ((name, Means(precision)), (f"{name}, channels_last", Means(precision, True))):
                    steps[words] = bench.plain_step(builds[name], means)
            turns = bench.turns(steps)
            print(f"\n{task}, {options.backbone}, {precision}")
            for words, step in steps.items():
                name = words.split(",")[0]
                print(f"  {words:<28} {_speed(bench, turns, words)}, {macs[name] / 1e9:.1f} GMACs{bench.cost(step)}")
            for words in list(steps)[1:]:
                peer = macs[words.split(",")[0]]
                per_mac = f"; {turns.speedup('ours', words).times * macs['ours'] / peer:.2f} x a MAC"
                print(
                    f"  ours over {words:<28} {_ratio(turns, 'ours', words)}{per_mac if peer != macs['ours'] else ''}",
                    flush=True,
                )


def compare_means(bench: Bench) -> None:
    """Print what each means gives alone over the plainest loop with our network, what several give together, and a run.

    The step of a run has channels_last and the fused optimizer, and does all that the plain loop does not.
    """
    options = bench.options
    build = partial(build_model, "deeplabv3plus", options.backbone, num_classes=CLASSES)
    ways = {
        "plain": Means(),
        "channels_last": Means(channels_last=True),
        "fused optimizer": Means(fused=True),
        "chunked loss": Means(chunked_loss=True),
        "bfloat16": Means("bfloat16"),
        "channels_last, fused": OURS,
        "channels_last, fused, bfloat16": replace(OURS, precision="bfloat16"),
    }
    if options.compile:
        ways["channels_last, fused, compiled"] = replace(OURS, compile=True)
    steps = {name: bench.plain_step(build, means, losses="ours") for name, means in ways.items()}
    ours = TrainParameters(optimizer="sgd", learning_rate=1e-3, weight_decay=1e-4)
    steps["the step of a run"] = bench.our_step(ours, build)
    turns = bench.turns(steps)
    print(f"\nour means over the plainest float32 loop with our network, DeepLabV3+, {options.backbone}, stride 16")
    for name, step in steps.items():
        print(
            f"  {name:<32} {_ratio(turns, name, 'plain')}, {_speed(bench, turns, name)}{bench.cost(step)}", flush=True
        )


def _speed(bench: Bench, turns: Turns, name: str) -> str:
    return f"{1000 * bench.options.batch / turns.milliseconds(name):.2f} crops/s"


def _ratio(turns: Turns, name: str, over: str) -> str:
    speedup = turns.speedup(name, over)
    return f"{speedup.times:.2f} x ({speedup.low:.2f} to {speedup.high:.2f})"


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    for name, default in (("batch", 2), ("height", 192), ("width", 192), ("threads", 1), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    precisions = ["float32", "bfloat16"]
    parser.add_argument("--precisions", nargs="+", default=precisions, choices=precisions)
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile; minutes on a CPU")
    parser.add_argument("--only", choices=["libraries", "means"], help="one of the two tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(options)
    size = f"{options.batch} crops of {options.height} x {options.width}"
    print(f"{size}, {bench.device.type}, {options.threads} thread(s), {options.turns} turns, {bench.clock.__name__}")
    if options.only != "means":
        compare_libraries(bench)
    if options.only != "libraries":
        compare_means(bench)
    return 0


if __name__ == "__main__":
    run_command(main)
