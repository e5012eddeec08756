"""Run the whole pipeline on the embedded city: every stage is a notebook, which papermill executes.

    dlv3p demo        (what `make demo` calls)

Executed notebooks go to outputs/demo/, everything else to outputs/<run>/ and saved/<run>/. A finished run is not
trained again. A notebook that is opened before any run exists shows the trained run in notebooks/trained/.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cityscapes.errors import MissingInputError, run_command
from cityscapes.files.atomic import check_writable
from cityscapes.workspace import NOTEBOOKS, output_folder, run_folder, workspace
from dlv3p.parameters.notebooks import RunParameters
from dlv3p.parameters.training import TrainParameters

STAGES = (
    "prepare_cityscapes",
    "train",
    "visualize_training",
    "evaluate",
    "save_predictions",
    "render_gif",
    "profile",
)
"""The notebooks, in the order of the pipeline."""

WITHOUT_RUN = ("prepare_cityscapes", "train")
"""The notebooks that take no run, because they come before one exists."""

FIRST_PICTURE = "examples.png"
"""The picture of a run's outputs to open first: image, prediction, truth and errors side by side."""


def load_run(parameters: RunParameters):
    """Load the predictor that a notebook's parameters name; if no run exists yet, that of the stored one.

    Raises MachineError where the run's results could not be written.
    """
    from dlv3p.evaluation.inference import load_run_predictor

    if not parameters.run:
        parameters = replace(parameters, run=runs_or_demo("")[-1])
    predictor = load_run_predictor(parameters)
    check_writable(output_folder(predictor.run))
    return predictor


def runs_or_demo(runs: str) -> list[str]:
    """Return the named runs, separated by spaces; "" means all, or the stored one if there is none."""
    from dlv3p.runs.folders import find_run, list_runs

    if runs.split():
        return [find_run(run) for run in runs.split()]
    if not list_runs():
        from dlv3p.runs.trained import install_trained_run

        install_trained_run()
        print(
            "no run yet: this shows the trained run that comes with the suite; train.ipynb makes your own", flush=True
        )
    return list_runs()


def run_stages() -> Iterator[tuple[str, Path, float]]:
    """Run the notebooks one after the other; yield the name, the executed copy, and the seconds of each."""
    import papermill

    if not NOTEBOOKS.is_dir():
        raise MissingInputError(
            f"{NOTEBOOKS}: no such folder; the demo needs the repository, installed with pip install -e ."
        )
    run = TrainParameters().run_name
    for number, stage in enumerate(STAGES, start=1):
        parameters = {} if stage in WITHOUT_RUN else {"runs" if stage == "visualize_training" else "run": run}
        copy = output_folder("demo") / f"{number}_{stage}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        print(f"\n[{number}/{len(STAGES)}] {stage}", flush=True)
        started = time.monotonic()
        papermill.execute_notebook(
            NOTEBOOKS / f"{stage}.ipynb",
            copy,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
        )
        yield stage, copy, time.monotonic() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Say how long it will take, run all stages, and print where to look, with the picture to open first."""
    parser = argparse.ArgumentParser(prog="dlv3p demo", description="Run every stage on the embedded city.")
    parser.parse_args(arguments)
    from dlv3p.jupyter.estimate import estimate_demo

    print(estimate_demo(TrainParameters()), flush=True)
    total = 0.0
    for _, copy, seconds in run_stages():
        total += seconds
        print(f"    {copy.relative_to(workspace())}  {seconds:.0f} s", flush=True)
    run = TrainParameters().run_name
    outputs, saved = (folder.relative_to(workspace()) for folder in (output_folder(run), run_folder(run)))
    print(f"\nDone in {total / 60:.1f} minutes. Open this picture first:\n  {outputs}/{FIRST_PICTURE}\nThen look at:")
    for path, what in (
        ("outputs/demo/", "all executed notebooks"),
        (f"{outputs}/curves.png", "training curves"),
        (f"{outputs}/evaluation.json", "scores; see also class_iou.png and confusion.png"),
        (f"{outputs}/submission.zip", "checked predictions for the server"),
        (f"{outputs}/val.gif", "an animated drive"),
        (f"{outputs}/profile.json", "parameters, MACs, latency, memory"),
        (f"{saved}/", "checkpoints, metrics, provenance"),
    ):
        print(f"  {path:<75} {what}")
    return 0


if __name__ == "__main__":
    run_command(main)
