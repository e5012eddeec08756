"""Compare a training step of ours with segmentation-models-pytorch's and torchvision's, and time each optimization.

    python -m benchmarks.training [--backbone resnet18 --batch 2 --height 192 --width 192 --threads 1 --turns 5]

A step is forward, loss, backward and optimizer, on the same crops, until the loss is on the host. Ours is the step of a
run: channels_last, a fused optimizer, our losses. Theirs is the plainest loop, as in their examples, and the same loop
in channels_last. Steps are timed in interleaved rounds in changing order: a ratio is the median of the rounds' ratios,
with its 95 % interval. Where networks differ, the ratio per MAC is given too. With one thread on a CPU the time is
process CPU time, which other work on the machine disturbs least, else wall time. On a GPU the peak memory of a step,
above that between steps, and the share of its time without a kernel are reported as well. The peers need: pip install
'dlv3p[bench]'.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    for name, default in (("batch", 2), ("height", 192), ("width", 192), ("threads", 1), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    precisions = ["float32", "bfloat16"]
    parser.add_argument("--precisions", nargs="+", default=precisions, choices=precisions)
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile; minutes on a CPU")
    parser.add_argument("--only", choices=["libraries", "means"], help="one of the two tables")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

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
from dlv3p.profiling.timing import InterleavedTimes, time_interleaved
from dlv3p.runtime.devices import LAYOUT, choose_device
from dlv3p.training.losses import make_chunked_loss, make_loss
from dlv3p.training.optimizers import make_optimizer
from dlv3p.training.step import build_loss, build_stepper

Step = Callable[[], float]


@dataclass(frozen=True)
class Optimizations:
    """Optimizations of a step; the defaults are the plainest loop."""

    precision: str = "float32"
    channels_last: bool = False
    fused: bool = False
    chunked_loss: bool = False
    compile: bool = False


OURS = Optimizations(channels_last=True, fused=True)

RUN = TrainParameters(optimizer="sgd", learning_rate=1e-3, weight_decay=1e-4, average_decay=0.0)
"""Whose step is timed: one that does no more than the others, so without an average of the weights."""


class Bench:
    """One batch of crops, its device, and the clock that times steps on it."""

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
        """Build one of our networks and return a step of a run with these parameters, as in `dlv3p.train`.

        In a run, batches come from the loader on the host; here they are on the device already, as for the peers.
        """
        torch.manual_seed(0)
        model = build().to(self.device, memory_format=LAYOUT).train()
        rate = {"learning_rate": parameters.learning_rate, "backbone_rate_factor": parameters.backbone_rate_factor}
        optimizer = make_optimizer(model, name=parameters.optimizer, weight_decay=parameters.weight_decay, **rate)
        stepper = build_stepper(parameters, model, build_loss(parameters, None), optimizer, self.device)
        confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64, device=self.device)

        def step() -> float:
            result = stepper(self.image, self.mask, rate=1.0, step=0)
            found = torch.stack([result.loss, result.diverged])  # for one read; a run on a GPU reads less often
            loss, diverged = found.tolist()
            if diverged:
                raise DivergedError("the benchmark's network has diverged; take another size")
            confusion.add_(confusion_matrix(self.mask, result.prediction, CLASSES))
            return loss

        return step

    def plain_step(
        self, build: Callable[[], nn.Module], optimizations: Optimizations, *, losses: str = "theirs"
    ) -> Step:
        """Build a network and return the step of a plain loop; `losses` of "ours" are those of this suite."""
        torch.manual_seed(0)
        layout = torch.channels_last if optimizations.channels_last else torch.contiguous_format
        model = build().to(self.device, memory_format=layout).train()
        image = self.image.to(memory_format=layout)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=optimizations.fused or None
        )
        theirs = partial(functional.cross_entropy, ignore_index=IGNORE)
        loss = make_loss("cross_entropy") if losses == "ours" else theirs
        forward: Callable[[Tensor], Tensor] = model
        if optimizations.chunked_loss:
            loss, forward = make_chunked_loss("cross_entropy"), model.logits_at_stride
        if optimizations.compile:
            forward = torch.compile(forward)
        low = optimizations.precision != "float32"

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

    def time(self, steps: dict[str, Step]) -> InterleavedTimes:
        """Time all steps, interleaved."""
        return time_interleaved(steps, warmup=1, repeats=self.options.turns, clock=self.clock)

    def cost(self, step: Step) -> str:
        """Format what `cost_on_gpu` measures; "" on a CPU."""
        return (
            ", peak {peak_mib:.0f} MiB, {share_without_kernel:.0%} of the step without a kernel".format(
                **self.cost_on_gpu(step)
            )
            if self.device.type == "cuda"
            else ""
        )

    def cost_on_gpu(self, step: Step) -> dict[str, float]:
        """Return the peak memory of a step above that between steps, and the share of its time without a kernel."""
        torch.cuda.reset_peak_memory_stats()
        before, began = torch.cuda.memory_allocated(), self.clock()
        step()
        seconds = self.clock() - began
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
        busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
        return {"peak_mib": peak, "share_without_kernel": max(0.0, 1 - busy / seconds)}


def compare_libraries(bench: Bench) -> None:
    """Print our step against that of each library, for every network that both have and every precision."""
    options = bench.options
    for task, builds in networks(options.backbone).items():
        macs = {name: count_macs(build, options.height, options.width)["total"] for name, build in builds.items()}
        for precision in options.precisions:
            ours = replace(RUN, precision=precision)
            steps = {"ours": bench.our_step(ours, builds["ours"])}
            for name in list(builds)[1:]:
                for suffix, channels_last in (("", False), (", channels_last", True)):
                    optimizations = Optimizations(precision, channels_last)
                    steps[name + suffix] = bench.plain_step(builds[name], optimizations)
            timings = bench.time(steps)
            print(f"\n{task}, {options.backbone}, {precision}")
            for words, step in steps.items():
                name = words.split(",")[0]
                print(f"  {words:<28} {_speed(bench, timings, words)}, {macs[name] / 1e9:.1f} GMACs{bench.cost(step)}")
            for words in list(steps)[1:]:
                peer = macs[words.split(",")[0]]
                per_mac = f"; {timings.speedup('ours', words).times * macs['ours'] / peer:.2f} x a MAC"
                ratio = _ratio(timings, "ours", words)
                print(f"  ours over {words:<28} {ratio}{per_mac if peer != macs['ours'] else ''}", flush=True)


def compare_optimizations(bench: Bench) -> None:
    """Print the gain of each optimization over the plainest loop with our network, of several together, and of a run.

    The step of a run has channels_last and the fused optimizer, and everything that the plain loop leaves out.
    """
    options = bench.options
    build = partial(build_model, "deeplabv3plus", options.backbone, num_classes=CLASSES)
    ways = {
        "plain": Optimizations(),
        "channels_last": Optimizations(channels_last=True),
        "fused optimizer": Optimizations(fused=True),
        "chunked loss": Optimizations(chunked_loss=True),
        "bfloat16": Optimizations("bfloat16"),
        "channels_last, fused": OURS,
        "channels_last, fused, bfloat16": replace(OURS, precision="bfloat16"),
    }
    if options.compile:
        ways["channels_last, fused, compiled"] = replace(OURS, compile=True)
    steps = {name: bench.plain_step(build, optimizations, losses="ours") for name, optimizations in ways.items()}
    steps["the step of a run"] = bench.our_step(RUN, build)
    timings = bench.time(steps)
    print(f"\noptimizations over the plainest float32 loop with our network, DeepLabV3+, {options.backbone}, stride 16")
    for name, step in steps.items():
        ratio, speed = _ratio(timings, name, "plain"), _speed(bench, timings, name)
        print(f"  {name:<32} {ratio}, {speed}{bench.cost(step)}", flush=True)


def _speed(bench: Bench, timings: InterleavedTimes, name: str) -> str:
    return f"{1000 * bench.options.batch / timings.milliseconds(name):.2f} crops/s"


def _ratio(timings: InterleavedTimes, name: str, over: str) -> str:
    speedup = timings.speedup(name, over)
    return f"{speedup.times:.2f} x ({speedup.low:.2f} to {speedup.high:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested comparisons."""
    options = parse_options(arguments)
    torch.set_num_threads(options.threads)
    bench = Bench(options)
    size = f"{options.batch} crops of {options.height} x {options.width}"
    print(f"{size}, {bench.device.type}, {options.threads} thread(s), {options.turns} rounds, {bench.clock.__name__}")
    if options.only != "means":
        compare_libraries(bench)
    if options.only != "libraries":
        compare_optimizations(bench)
    return 0


if __name__ == "__main__":
    run_command(main)
