"""Compare the accuracy of our training with segmentation-models-pytorch's DeepLabV3+, for the same work.

    python -m benchmarks.accuracy [--root FOLDER --name camvid --seeds 0 1 2 --epochs 12 --image-scale 0.5 ...]

Both start from random weights and see the same images equally often, in batches and crops of the same size. Each side
tries the six recipes of `OURS` and `benchmarks.plain_loop.PEER_RECIPES` with the first seed, and trains its best one
with the other seeds. The validation split is scored in the same way for both: the weights of the last epoch, whole
images, at the size of their masks. The recipes are chosen on the images that score them, for both sides alike.
Intervals come from blocks of images and, from five seeds on, from seeds (`dlv3p.evaluation.statistics`). What is
finished is not trained again; results are in outputs/<name>/. The peer needs: pip install 'dlv3p[bench]'.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from dlv3p.parameters.data_roots import DEMO_CITY
from dlv3p.parameters.training import TrainingDataParameters, TrainParameters


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=DEMO_CITY, help="a data set of any kind; the embedded city by default")
    parser.add_argument("--name", default="accuracy", help="name of runs and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="the first one chooses the recipes")
    parser.add_argument("--backbone", default="mobilenet_v2", choices=["mobilenet_v2", "resnet18", "resnet50"])
    parser.add_argument("--output-stride", type=int, default=16, choices=[8, 16])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--image-scale", type=float, default=1.0)
    counts = {"epochs": 12, "channels": 64, "crop-height": 128, "crop-width": 256, "batch-size": 4, "threads": 1}
    for name, default in {**counts, "workers": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    if options.crop_height % 16 or options.crop_width % 16:
        parser.error(f"crop of {options.crop_height} x {options.crop_width}: the peer takes multiples of 16 only")
    return options


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

import numpy as np
import torch
from torch import Tensor

from benchmarks.plain_loop import PEER_RECIPES, PlainSettings, build_peer, peer_logits, train_plainly
from cityscapes.dataset import Split
from cityscapes.errors import run_command
from cityscapes.files.atomic import write_text
from cityscapes.workspace import output_folder
from dlv3p.data.loader import WholeImages
from dlv3p.data.roots import open_training
from dlv3p.evaluation.image_counts import ImageCounts, read_image_counts
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.evaluation.statistics import FEWEST_SEEDS, compare, compare_seeds, score_interval
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.deeplab import build_model
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint

OURS = {
    "default": {},
    "jitter 0.3": {"color_jitter": 0.3},
    "rate 0.003": {"learning_rate": 0.003},
    "scales 0.5 to 2": {"scale_low": 0.5, "scale_high": 2.0},
    "no class weights": {"class_weights": "none"},
    "no average, uniform crops": {"average_decay": 0.0, "class_uniform": 0.0},
}
"""What each of our six recipes changes of the default parameters."""


@torch.inference_mode()
def count_images(logits: Callable[[Tensor, tuple[int, int]], Tensor], images: WholeImages) -> ImageCounts:
    """Return the confusion counts of each whole image, at the size of its mask."""
    split, confusions = images.split, []
    for index in range(len(images)):
        image, mask = images[index]
        prediction = logits(image[None], mask.shape).argmax(dim=1)
        confusions.append(confusion_matrix(mask[None], prediction, split.num_classes).numpy())
    return ImageCounts.of(split, confusions, split.class_names)


def train_ours(parameters: TrainParameters, images: WholeImages) -> ImageCounts:
    """Train one run of ours, or resume it, and score the network of its last epoch."""
    train(parameters)
    model, _ = model_from_checkpoint(load_checkpoint(checkpoint_path(parameters.run_name, "last")))
    model.eval()
    return count_images(lambda image, size: model.upsample(model.logits_at_stride(image), size), images)


def train_peer(settings: PlainSettings, training: Split, images: WholeImages) -> ImageCounts:
    """Train one run of the peer, and score the network of its last epoch."""
    model = train_plainly(settings, training).eval()
    return count_images(peer_logits(model, settings.output_stride), images)


def kept_counts(path: Path, settings: dict, work: Callable[[], ImageCounts]) -> ImageCounts:
    """Return the counts at `path` (.npz) if those of these settings, else do the work and keep its result there."""
    record = path.with_suffix(".json")
    if record.is_file() and json.loads(record.read_text()) == json.loads(json.dumps(settings)):
        return read_image_counts(path)
    record.unlink(missing_ok=True)
    counts = work()
    counts.save(path)
    write_text(record, json.dumps(settings, indent=1) + "\n")
    return counts


class Sides:
    """Ours and the peer on one data set and budget: `count(side, recipe, seed)` trains and scores one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name, self.root, self.threads = options.name, options.root, options.threads
        self.training, scored = open_training(TrainingDataParameters(data_root=options.root))
        self.images = WholeImages(scored, image_scale=options.image_scale)
        names = ("backbone", "output_stride", "channels", "image_scale", "crop_height", "crop_width", "batch_size")
        self.shared = {name: getattr(options, name) for name in (*names, "epochs", "precision", "workers")}

    def count(self, side: str, recipe: str, seed: int) -> ImageCounts:
        """Return the counts of a run of `ours` or `smp`, trained where no finished one is kept."""
        run = f"{self.name}_{side}_{list(self.recipes(side)).index(recipe)}_seed{seed}"
        changed = {**self.shared, **self.recipes(side)[recipe], "seed": seed}
        if side == "ours":
            fixed = {"data_root": self.root, "threads": self.threads, "progress": "lines"}
            parameters = TrainParameters(run=run, validate_every=self.shared["epochs"], **fixed, **changed)
            settings, work = parameters.as_dict(), partial(train_ours, parameters, self.images)
        else:
            plain = PlainSettings(**changed)
            settings, work = asdict(plain), partial(train_peer, plain, self.training, self.images)
        return kept_counts(output_folder(self.name) / f"{run}.npz", {"data_root": self.root, **settings}, work)

    @staticmethod
    def recipes(side: str) -> dict[str, dict]:
        """Return the recipes that a side tries."""
        return OURS if side == "ours" else PEER_RECIPES

    def best(self, side: str, seed: int) -> str:
        """Train every recipe of a side with one seed, print their scores, and return the best one's name."""
        means = {recipe: mean_iou(self.count(side, recipe, seed)) for recipe in self.recipes(side)}
        for recipe, value in means.items():
            print(f"{side:<5} {recipe:<44} {value:6.2f}", flush=True)
        return max(means, key=means.__getitem__)

    def costs(self) -> str:
        """Format parameters and MACs of both networks."""
        length = [round(side * self.shared["image_scale"]) for side in self.images.split.image(0).size[::-1]]
        height, width = (-(-side // 16) * 16 for side in length)
        switches = {name: self.shared[name] for name in ("channels", "output_stride")}
        classes = self.training.num_classes
        ours = partial(build_model, "deeplabv3plus", self.shared["backbone"], num_classes=classes, **switches)
        lines = []
        for name, build in {"ours": ours, "smp": partial(build_peer, PlainSettings(**self.shared), classes)}.items():
            macs, parameters = count_macs(build, height, width)["total"], count_parameters(build())["total"]
            lines.append(f"{name} {parameters / 1e6:.2f} M parameters, {macs / 1e9:.2f} GMACs")
        return f"{height} x {width} pixels: {'; '.join(lines)} (its head is separable)"


def mean_iou(counts: ImageCounts) -> float:
    """Return the mean IoU over the split, in percent."""
    return 100 * scores(counts.confusions().sum(axis=0)).mean_iou


def report(results: dict[str, list[ImageCounts]], seeds: Sequence[int]) -> str:
    """Format each seed's scores, and the difference of all seeds together: mean and classes, with their intervals."""
    means = {side: [mean_iou(one) for one in counts] for side, counts in results.items()}
    spreads = [f"{side} {_spread(values)}" for side, values in means.items()]
    lines = [f"{'seed':<6} {'ours':>7} {'smp':>7}   change"]
    for index, (seed, ours, smp) in enumerate(zip(seeds, means["ours"], means["smp"], strict=True)):
        one = compare(*(results[side][index].confusions() for side in ("smp", "ours")), results["ours"][index].groups)
        lines.append(f"{seed:<6} {ours:7.2f} {smp:7.2f}   {one.mean.value:+.2f} {one.mean}")
    lines.append(f"mIoU in percent, mean ± sd over the seeds: {', '.join(spreads)}")
    by_seed = compare_seeds(means["smp"], means["ours"])
    interval = str(by_seed) if by_seed.known else f"no interval from fewer than {FEWEST_SEEDS} seeds"
    lines.append(f"ours - smp, in points, from seeds on these images: {by_seed.value:+.2f} {interval}")
    groups, class_names = results["ours"][0].groups, results["ours"][0].class_names
    summed = {side: np.sum([one.confusions() for one in counts], axis=0) for side, counts in results.items()}
    for side, counts in summed.items():
        interval = score_interval(counts, groups)
        lines.append(f"{side}, the counts of all seeds summed: mIoU {100 * interval.value:.2f} {interval} of 1")
    change = compare(summed["smp"], summed["ours"], groups)
    lines.append(f"ours - smp, in points, from blocks of images: {change.mean.value:+.2f} {change.mean}")
    lines += [f"  {name:<14} {one.value:+7.2f} {one}" for name, one in zip(class_names, change.classes, strict=True)]
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, and print the comparison."""
    options = parse_options(arguments)
    torch.set_num_threads(options.threads)
    sides = Sides(options)
    print(f"{options.root}: {len(sides.training)} images to train on, {len(sides.images)} to score; {sides.costs()}")
    results = {}
    for side in ("ours", "smp"):
        recipe = sides.best(side, options.seeds[0])
        print(f"{side}: the best recipe is {recipe!r}")
        results[side] = [sides.count(side, recipe, seed) for seed in options.seeds]
    print(report(results, options.seeds))
    return 0


if __name__ == "__main__":
    run_command(main)
