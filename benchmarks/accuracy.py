"""Compare the accuracy of our training with segmentation-models-pytorch's DeepLabV3+ in a plain loop, on one budget.

    python -m benchmarks.accuracy [--root FOLDER --name camvid --seeds 0 1 2 --epochs 16 --image-scale 0.5 ...]

Both start from random weights and see the same images equally often, in batches and crops of the same size: ours with
this project's training (random scale, jitter, schedule, class weights by default), the peer as in
`benchmarks.plain_loop`. The validation split is scored in the same way for both: the weights of the last epoch, whole
images, at the size of their masks. Training times exclude scoring, for both. A finished seed is not trained again;
results are in outputs/<name>/. The peer needs: pip install 'dlv3p[bench]'.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from unittest.mock import patch

from dlv3p.parameters.data_roots import DEMO_CITY
from dlv3p.parameters.training import TrainingDataParameters, TrainParameters


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=DEMO_CITY, help="a data set of any kind; the embedded city by default")
    parser.add_argument("--name", default="accuracy", help="name of runs and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--backbone", default="resnet18", choices=["resnet18", "resnet34", "resnet50", "resnet101"])
    parser.add_argument("--output-stride", type=int, default=16, choices=[8, 16])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--class-weights", default="inverse_log", choices=["inverse_log", "none"], help="of ours")
    parser.add_argument("--validate-every", type=int, default=1, help="epochs between two scores; the last counts")
    counts = {"epochs": 10, "channels": 64, "crop-height": 64, "crop-width": 128, "batch-size": 8, "threads": 1}
    for name, default in {**counts, "workers": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.plain_loop import PlainSettings, build_peer, peer_logits, train_plainly
from cityscapes.dataset import Split
from cityscapes.errors import run_command
from cityscapes.files.atomic import write_text
from cityscapes.labels import IGNORE
from cityscapes.workspace import output_folder
from dlv3p.data.loader import WholeImages
from dlv3p.data.roots import open_training
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.deeplab import build_model
from dlv3p.pictures.curves import plot_curves, read_metrics
from dlv3p.pictures.figures import save_figure
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.training import validation
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint

PEER = "smp"


@torch.inference_mode()
def score(model: nn.Module, logits: Callable[[Tensor, tuple[int, int]], Tensor], images: WholeImages) -> dict:
    """Score a network on whole images: its loss, the four means of `Scores.means`, and the IoU of each class."""
    model.eval()
    classes = images.split.num_classes
    confusion, total = torch.zeros(classes, classes, dtype=torch.int64), 0.0
    for index in range(len(images)):
        image, mask = images[index]
        output = logits(image[None], mask.shape)
        total += functional.cross_entropy(output, mask[None], ignore_index=IGNORE).item()
        confusion += confusion_matrix(mask[None], output.argmax(dim=1), classes)
    result = scores(confusion)
    iou = [None if np.isnan(value) else float(value) for value in result.iou]
    return {"loss": total / len(images), **result.means(), "iou": iou}


def cached_result(path: Path, settings: dict, work: Callable[[], dict]) -> dict:
    """Return the content of `path` if it has these settings, else do the work and write its result there."""
    if path.is_file():
        content = json.loads(path.read_text())
        if content["settings"] == settings:
            return content
    content = {"settings": settings, **work()}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return content


@contextmanager
def scoring_times() -> Iterator[list[float]]:
    """Collect the seconds of each scoring during the block; the time of an epoch includes them."""
    seconds: list[float] = []
    score_epoch = validation.validate

    def timed(*arguments: object, **options: object) -> dict[str, float]:
        began = time.monotonic()
        result = score_epoch(*arguments, **options)
        seconds.append(time.monotonic() - began)
        return result

    with patch.object(validation, "validate", timed):
        yield seconds


def training_seconds(history: Sequence[dict], scoring: Sequence[float]) -> float:
    """Return the seconds of a run without those of scoring; nan where part of it was trained before, untimed."""
    scored = sum(not math.isnan(row["val_loss"]) for row in history)
    return sum(row["seconds"] for row in history) - sum(scoring) if scored == len(scoring) else math.nan


def train_ours(parameters: TrainParameters, images: WholeImages) -> dict:
    """Train a seed of ours, or resume it, and score its last epoch."""
    with scoring_times() as scoring:
        history = train(parameters).history
    model, _ = model_from_checkpoint(load_checkpoint(checkpoint_path(parameters.run_name, "last")))
    logits = lambda image, size: model.upsample(model.logits_at_stride(image), size)  # noqa: E731
    return {**score(model, logits, images), "training_seconds": training_seconds(history, scoring)}


def train_peer(settings: PlainSettings, training: Split, images: WholeImages, validate_every: int) -> dict:
    """Train a seed of the peer and score every `validate_every` epochs; the last score counts."""
    rows = []
    unscored = {**dict.fromkeys(("loss", "mIoU", "mDice", "mPA", "pixel_accuracy"), float("nan")), "iou": []}
    for model, loss, seconds in train_plainly(settings, training):
        scored = (len(rows) + 1) % validate_every == 0 or len(rows) + 1 == settings.epochs
        result = score(model, peer_logits(model, settings.output_stride), images) if scored else unscored
        rows.append({"epoch": len(rows) + 1, "train_loss": loss, "seconds": seconds, **result})
        status = f"loss {loss:.4f}  val loss {result['loss']:.4f}  val mIoU {result['mIoU']:.3f}  {seconds:.1f} s"
        print(f"{PEER} seed {settings.seed} epoch {len(rows):2d}/{settings.epochs}  {status}", flush=True)
    last = rows[-1]
    iou = {"iou": last.pop("iou")}
    history = [{name: value for name, value in row.items() if name != "iou"} for row in rows]
    return {**last, **iou, "training_seconds": sum(row["seconds"] for row in rows), "history": history}


def draw_curves(ours: Sequence[str], peers: dict[str, dict], output_stride: int, path: Path) -> None:
    """Write a figure of all runs' curves; the plain loop does not score its crops."""
    tables = [read_metrics(ours)]
    for name, result in peers.items():
        history = pd.DataFrame(result["history"])
        fixed = {"run": name, "output_stride": output_stride}
        train_rows = history[["epoch", "seconds"]].assign(split="train", loss=history.train_loss, **fixed)
        tables += [history.drop(columns="train_loss").assign(split="val", **fixed), train_rows]
    save_figure(plot_curves(pd.concat(tables, ignore_index=True)), path)


def report(results: dict[str, list[dict]], seeds: Sequence[int], class_names: Sequence[str]) -> str:
    """Format the scores of each seed, their means, the paired difference, and the IoU of each class."""
    lines = [f"{'seed':<14} {'ours':>9} {PEER:>9} {'difference':>11}   seconds without scoring, ours and {PEER}"]
    # Older results lack these seconds: ours included the scoring.
    seconds = {name: [row.get("training_seconds", math.nan) for row in rows] for name, rows in results.items()}
    mean_ious = {name: [100 * row["mIoU"] for row in rows] for name, rows in results.items()}
    pairs = [own - other for own, other in zip(mean_ious["ours"], mean_ious[PEER], strict=True)]
    for index, seed in enumerate(seeds):
        own, other = mean_ious["ours"][index], mean_ious[PEER][index]
        times = "  ".join(f"{values[index]:6.0f}" for values in seconds.values())
        lines.append(f"{seed:<14} {own:9.2f} {other:9.2f} {pairs[index]:+11.2f}   {times}")
    summary = [f"{name} {_spread(values)}" for name, values in mean_ious.items()]
    lines.append(f"mIoU in percent, mean ± sd: {', '.join(summary)}; paired difference {_spread(pairs, sign='+')}")
    lines.append(f"\n{'class':<14} {'ours':>9} {PEER:>9}   mean IoU over the seeds")
    for index, name in enumerate(class_names):
        values = [_mean([row["iou"][index] for row in rows]) for rows in results.values()]
        lines.append(f"{name:<14} " + " ".join(f"{100 * value:9.2f}" for value in values))
    return "\n".join(lines)


def costs(builds: dict[str, Callable[[], nn.Module]], height: int, width: int) -> str:
    """Format parameters and MACs of both networks."""
    lines = []
    for name, build in builds.items():
        macs, parameters = count_macs(build, height, width)["total"], count_parameters(build())["total"]
        lines.append(f"{name} {parameters / 1e6:.2f} M parameters, {macs / 1e9:.2f} GMAC")
    return f"for an image of {height} x {width}: {'; '.join(lines)} (its head is separable)"


def _spread(values: Sequence[float], sign: str = "") -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the missing seeds, and print the comparison."""
    options = parse_options(arguments)
    names = ("backbone", "output_stride", "channels", "image_scale", "crop_height", "crop_width", "batch_size")
    shared = {name: getattr(options, name) for name in (*names, "epochs", "precision", "workers")}
    training, scored = open_training(TrainingDataParameters(data_root=options.root))
    images, folder = WholeImages(scored, image_scale=options.image_scale), output_folder(options.name)
    torch.set_num_threads(options.threads)
    results, runs = {"ours": [], PEER: []}, []
    for seed in options.seeds:
        parameters = TrainParameters(
            run=f"{options.name}_seed{seed}", data_root=options.root, seed=seed, threads=options.threads,
            progress="lines", class_weights=options.class_weights, validate_every=options.validate_every,
            class_uniform=0.0, color_jitter=0.3, warmup_steps=0, average_decay=0.0, **shared,
        )  # fmt: skip
        runs.append(parameters.run_name)
        path = folder / f"{parameters.run_name}.json"
        results["ours"].append(cached_result(path, parameters.as_dict(), partial(train_ours, parameters, images)))
        settings = PlainSettings(seed=seed, **shared)
        known = {"data_root": options.root, **asdict(settings)}
        path = folder / f"{options.name}_{PEER}_seed{seed}.json"
        work = partial(train_peer, settings, training, images, options.validate_every)
        results[PEER].append(cached_result(path, known, work))

    size = scored.image(0).size
    height, width = (-(-round(length * options.image_scale) // 16) * 16 for length in (size[1], size[0]))
    switches = {"channels": options.channels, "output_stride": options.output_stride}
    ours = partial(build_model, "deeplabv3plus", options.backbone, num_classes=training.num_classes, **switches)
    builds = {"ours": ours, PEER: partial(build_peer, settings, training.num_classes)}
    table = report(results, options.seeds, training.class_names)
    print(f"\n{options.root}: {len(training)} images to train on, {len(scored)} to score, {options.epochs} epochs")
    print(f"{costs(builds, height, width)}\n{table}")
    peers = {f"{options.name}_{PEER}_seed{seed}": row for seed, row in zip(options.seeds, results[PEER], strict=True)}
    draw_curves(runs, peers, options.output_stride, folder / "curves.png")
    print(f"curves: {folder / 'curves.png'}")
    return 0


if __name__ == "__main__":
    run_command(main)
