"""What a training is said to cost before it starts, against what it then costs: ten runs of two networks at two sizes.

    python -m benchmarks.cost [--steps 20] [--runs 10]

Each run is a few steps on the embedded city, with a validation and its checkpoints, in a process of its own. Its time
counts from the first step to the end, its memory is the peak of that process. The aims: a median error of at most 20 %
of the time, and of at most 25 % of the memory as predicted before a step, 10 % as measured in three steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice, product
from typing import Any

from cityscapes.errors import run_command

NETWORKS = ({"backbone": "mobilenet_v2"}, {"backbone": "resnet18"})
SIZES = ({"crop_height": 128, "crop_width": 256}, {"crop_height": 193, "crop_width": 385})
OTHERS = ({"batch_size": 4}, {"batch_size": 2, "workers": 0}, {"batch_size": 4, "threads": 1})
TRAIN = """
import json, sys, time
from dlv3p.parameters.training import TrainParameters
from dlv3p.profiling.process_memory import peak_kib
from dlv3p.train import train
from dlv3p.training.progress import TrainingProgress
began, begin = [], TrainingProgress.begin_epoch
TrainingProgress.begin_epoch = lambda self: (began.append(time.perf_counter()), begin(self))
train(TrainParameters(**json.loads(sys.argv[1])))
print(json.dumps({"seconds": time.perf_counter() - began[0], "mib": peak_kib() / 1024}))
"""
ESTIMATE = """
import json, sys
from dlv3p.data.roots import open_training
from dlv3p.parameters.training import TrainParameters
from dlv3p.training.cost import estimate_cost
from dlv3p.training.memory import predict_bytes
parameters = TrainParameters(**json.loads(sys.argv[1]))
cost = estimate_cost(parameters)
before = predict_bytes(parameters, open_training(parameters)[0].num_classes)
print(json.dumps({"seconds": cost.seconds, "before": before / 2**20, "mib": cost.memory_mib}))
"""


def run(program: str, parameters: dict[str, Any], folder: str) -> dict[str, float]:
    """Run a program on the parameters in a new process, and return what it prints last."""
    words = [sys.executable, "-c", program, json.dumps(parameters)]
    environment = os.environ | {"DLV3P_WORKSPACE": folder}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, estimate and train each case, and print the errors and their medians."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="of each run (default: 20)")
    parser.add_argument("--runs", type=int, default=10, help="how many runs (default: 10)")
    options = parser.parse_args(arguments)
    errors: dict[str, list[float]] = {"time": [], "memory before a step": [], "memory after three": []}
    print("network, crop, others: seconds said / taken, MiB before a step / after three / taken, 1 min load")
    with tempfile.TemporaryDirectory(prefix="dlv3p-cost-") as folder:
        for number, parts in enumerate(islice(product(OTHERS, NETWORKS, SIZES), options.runs)):
            case = {name: value for part in parts for name, value in part.items()}
            parameters = {**case, "run": f"run{number}", "steps": options.steps, "progress": "none"}
            said, taken = run(ESTIMATE, parameters, folder), run(TRAIN, parameters, folder)
            errors["time"].append(said["seconds"] / taken["seconds"] - 1)
            errors["memory before a step"].append(said["before"] / taken["mib"] - 1)
            errors["memory after three"].append(said["mib"] / taken["mib"] - 1)
            print(
                f"{case}: {said['seconds']:.1f} / {taken['seconds']:.1f} s, {said['before']:.0f} / {said['mib']:.0f} / "
                f"{taken['mib']:.0f} MiB, load {os.getloadavg()[0]:.1f}", flush=True,
            )  # fmt: skip
    for what, found in errors.items():
        print(f"{what}: median error {100 * statistics.median(map(abs, found)):.0f} %, "
              f"from {100 * min(found):+.0f} to {100 * max(found):+.0f} %")  # fmt: skip
    return 0


if __name__ == "__main__":
    run_command(main)
