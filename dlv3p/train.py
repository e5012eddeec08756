"""Train one network on one data set, or resume a run: a function for notebooks and a command for several machines.

dlv3p train --config notebooks/recipes/cityscapes_deeplabv3plus_resnet50_os16.yaml -p seed 1
torchrun --nnodes 2 --nproc-per-node 4 ... -m dlv3p.train --config saved/<run>/run.json

torchrun forwards SIGTERM, and the run saves, but torchrun itself then ends with a traceback and status 1. On one
machine, `-p processes 4` does the same as `torchrun --nproc-per-node 4`, and ends with one line and status 143.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import run_command
from cityscapes.workspace import run_folder
from dlv3p.parameters.files import read_config, read_value
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.record import refuse_other_run

if TYPE_CHECKING:
    from torch import Tensor

    from cityscapes.dataset import Split
    from dlv3p.training.progress import TrainingResult


def train(parameters: TrainParameters) -> "TrainingResult":
    """Train, or resume from the last checkpoint of the same run; a finished run returns at once.

    With `processes` above 1, launch that many, unless this process belongs to a group already.
    Raises ParameterError when the run's folder holds a run with other parameters, DivergedError when the loss is no
    longer finite (no good checkpoint is overwritten), BusyError when another process trains the run (in front of a
    person, its training is followed instead), and StoppedError after a checkpoint when the run was asked to stop.
    """
    # Imported here, since neither --help nor the refusal of a parameter is to wait for torch.
    import torch

    from cityscapes.freed_memory import keep_freed_memory
    from dlv3p.data.class_pixels import class_pixels, describe_absent, describe_palettes, refuse_one_class
    from dlv3p.data.classes import own_colors
    from dlv3p.data.fingerprints import describe_shared
    from dlv3p.data.likeness import describe_alike
    from dlv3p.data.loader import opened_batches
    from dlv3p.data.roots import open_training
    from dlv3p.evaluation.metrics import confusion_matrix, describe_one_class
    from dlv3p.profiling.energy import open_meter
    from dlv3p.runs.folders import hold_run, write_metrics
    from dlv3p.runtime.callbacks import after_each_image, failure_reported
    from dlv3p.runtime.devices import choose_device, explain_out_of_memory, moved_ahead
    from dlv3p.runtime.processes import from_first, joined_processes, place, started_in_group
    from dlv3p.runtime.progress import preparing, show_finished
    from dlv3p.training.callbacks import check_extras, make_callbacks
    from dlv3p.training.checkpoints import Checkpoints, export_best
    from dlv3p.training.distillation import refuse_other_teacher
    from dlv3p.training.divergence import DivergenceGuard
    from dlv3p.training.findings import UnreadFindings
    from dlv3p.training.following import follow_elsewhere
    from dlv3p.training.interruption import Interruption
    from dlv3p.training.launching import in_turn, launch, reported_errors
    from dlv3p.training.optimizers import build_schedule
    from dlv3p.training.progress import TrainingProgress
    from dlv3p.training.recording import memory_advice, record_run
    from dlv3p.training.recovery import build_for_training, build_run_stepper, last_checkpoint
    from dlv3p.training.validation import refuse_tiny_images, validate
    from dlv3p.weights.checkpoint import stated_of

    p = parameters
    seen = follow_elsewhere(p)  # the rest then finds the run finished
    torch.set_num_threads(p.threads)
    opened = partial(open_training, p)
    splits = training, validation = in_turn(opened)  # of a data set without masks, one process makes them
    check_extras(p)
    if p.processes > 1 and not started_in_group():
        launch(p)  # the rest then finds the run finished
        seen = True
    with (
        joined_processes(choose_device(p.device).type),
        reported_errors(),
        Interruption(p.run_name) as interruption,
        hold_run(p.run_name) if place().first else nullcontext(run_folder(p.run_name)) as folder,
        explain_out_of_memory(memory_advice(p)),
        keep_freed_memory(),
        preparing(p.progress, "preparing the data and the network") as prepared,
    ):
        device, classes = choose_device(p.device), training.num_classes

        # Data: its labels first, since masks of one class would train to a score that means nothing; batches come last,
        # so that a run that is finished reads no image.
        pixels = from_first([class_pixels(split, skip_bad=True) for split in splits] if place().first else None)
        for split, counts in zip(splits, pixels, strict=True):
            refuse_one_class(split, counts)
        saved = from_first(last_checkpoint(folder, p, training) if place().first else None)

        # Model: new, with the chosen initial weights, or as in the last checkpoint.
        torch.manual_seed(p.seed)
        model = build_for_training(p, training.class_names, device, saved, training.pixel_rule)
        model.colors = own_colors(training.class_names, training.colors)
        refuse_tiny_images(model, validation, device, image_scale=p.image_scale)

        # Loss and optimizer, in a stepper: against the labels and, with a teacher, against its predictions; with a
        # learning rate for the backbone and one for the head, both scheduled per step.
        stepper = build_run_stepper(p, model, training, device)
        per_epoch = len(training) // min(p.batch_size, len(training))
        steps = p.steps or p.epochs * per_epoch
        rate_of = build_schedule(p, steps, per_epoch)

        # Progress, resumed from the last checkpoint, and the checkpoints to come, which state facts beside the weights.
        planned = {"steps": steps, "steps_per_epoch": per_epoch, "patience": p.patience}
        progress = TrainingProgress(classes, device, meter=open_meter(device), **planned)
        progress.caution = describe_one_class(pixels[1], validation.class_names, validation.split)
        if saved:
            stepper.load_state_dict(saved)
            progress.load_state_dict(saved)
        facts = {"parameters": p.as_dict(), "class_names": list(training.class_names), **stated_of(model)}
        facts |= {"meaning": training.meaning, "teacher_sha256": refuse_other_teacher(stepper.teacher, saved)}
        checkpoints = Checkpoints(folder, stepper, progress, interruption, minutes=p.checkpoint_minutes, facts=facts)
        record_run(folder, p, splits, progress)
        if trains := not progress.finished:
            if place().first:
                copies = describe_shared(validation, training) or describe_alike(validation, training)
                labels = describe_absent(training, pixels[0]), describe_palettes(training, validation)
                for line in filter(None, (*labels, copies)):
                    print(f"warning: {line}", flush=True)
            done, history, stop = progress.done, progress.history, interruption.request
            callbacks = make_callbacks(p, folder, training, pixels=pixels[0], done=done, history=history, stop=stop)

            # Batches: crops in an order that is a function of the seed, and whole images for validation.
            with ExitStack() as guards:
                crops, whole = guards.enter_context(opened_batches(p, training, validation))
                divergence = DivergenceGuard(folder, crops, facts, learning_rate=p.learning_rate)
                unread = UnreadFindings(classes, device)  # what steps found stays on the device for several of them
                look = _sample_predictions(p, validation, lambda: progress.epoch)
                prepared()
                callbacks.on_start(progress.epochs, per_epoch, progress.epoch)
                guards.enter_context(failure_reported(callbacks))
                interruption.after_steps()  # from here on, a request to stop waits for the end of a step

                # Loop: an epoch is its steps, a validation and a checkpoint.
                while not progress.finished:
                    epoch, sums = progress.epoch, progress.sums
                    crops.sampler.epoch, crops.sampler.skipped = epoch, sums.steps
                    model.train()
                    progress.begin_epoch()
                    left = steps - progress.done  # a run may end within an epoch
                    for image, mask in moved_ahead(islice(crops, left), device):
                        step, rate = progress.done, rate_of(progress.done)
                        result = stepper(image, mask, rate=rate, step=step)
                        unread.add(result, confusion_matrix(mask, result.prediction, classes), step=step, rate=rate)
                        progress.add_step(rate=rate, data_wait=crops.waited)
                        asked = interruption.asked()
                        if unread.due(progress.done, last=progress.epoch_is_over, asked_to_stop=asked):
                            found = unread.read(asked_to_stop=asked)
                            divergence.check(found.steps, stepper)
                            progress.add_findings([each.loss for each in found.steps], found.confusion)
                            for each in found.steps:
                                callbacks.on_step(epoch, each.step % per_epoch + 1, each.loss)
                            checkpoints.after_step(found.asked_to_stop)

                    # Validation: the weights that are exported, on whole images.
                    scores = None
                    if epoch % p.validate_every == 0 or epoch == progress.epochs:
                        images = len(validation)
                        common = images // place().ranks
                        after_each = after_each_image(callbacks, epoch, common, checkpoints.after_image)
                        scores = validate(
                            stepper.scored, whole, classes, device, images=images, after_each=after_each, look=look
                        )

                    # Checkpoint: commits the epoch.
                    improved = progress.close_epoch(scores, learning_rate=p.learning_rate)
                    checkpoints.after_epoch(improved=improved)
                    if place().first:
                        write_metrics(folder, progress.history)
                    callbacks.on_epoch(progress.history[-1])
                    checkpoints.stop_between_epochs()
            callbacks.on_finish(progress.result(folder).summary)
        elif place().first and not seen:
            prepared()
            told = f"finished before, nothing is left to train: {progress.result(folder).summary}"
            show_finished(p.progress, progress.history, told)
        if place().first:
            export_best(folder, anew=trains)
        return progress.result(folder)


def _sample_predictions(
    p: TrainParameters, validation: "Split", epoch: "Callable[[], int]"
) -> "Callable[[int, Tensor], None] | None":
    """Return what draws the predictions of a few images, for a person or a film, from what a validation computes.

    Pictures that an earlier training of this name has of epochs to come are removed.
    """
    from dlv3p.runs.folders import cut_film, film_folder
    from dlv3p.runtime.processes import place
    from dlv3p.runtime.progress import resolve_mode

    if not place().first:
        return None
    cut_film(p.run_name, epoch())
    shown = resolve_mode(p.progress) == "widgets"
    if not (shown or p.film):
        return None
    from dlv3p.evaluation.evaluate import data_name
    from dlv3p.pictures.learning import SamplePredictions

    film = film_folder(p.run_name) if p.film else None
    return SamplePredictions(
        validation, epoch, shown=shown, film=film, footer=f"{p.run_name} · {data_name(validation)}"
    ).look


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the parameters, train, and print the best score and what to do next."""
    parser = argparse.ArgumentParser(prog="dlv3p train", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", type=Path, help="saved/<run>/run.json, or a recipe of notebooks/recipes")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter; may be repeated",
    )
    parser.add_argument(
        "--try", dest="trial", action="store_true",
        help="train nothing: time a few steps, also in mixed precision and with larger batches, and their memory",
    )  # fmt: skip
    parser.add_argument(
        "--range-test", action="store_true",
        help="train nothing: raise the learning rate step by step, and suggest one; curve in outputs/<run>/",
    )  # fmt: skip
    parser.add_argument("--no-estimate", action="store_true", help="start at once, without saying what the run costs")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}; set a parameter by -p NAME VALUE")
    values = read_config(options.config) if options.config else {}
    values |= {name: read_value(name, text) for name, text in options.parameter}
    parameters = TrainParameters.from_mapping(values)
    parameters.find_inputs()
    refuse_other_run(parameters)
    if options.trial:
        from dlv3p.training.trial import report_trials

        print(report_trials(parameters))
        return 0

    if options.range_test:
        print(_report_range_test(parameters))
        return 0

    # They load torch, which neither --help nor the refusal of a parameter is to wait for.
    from dlv3p.training.cost import say_cost
    from dlv3p.training.launching import end_with_parent, reported_errors, started_by_launch

    end_with_parent()
    with reported_errors():
        if not options.no_estimate:
            say_cost(parameters)
        result = train(parameters)
    if int(os.environ.get("RANK", 0)) == 0 and not started_by_launch():
        score = f": {result.summary}" if parameters.progress == "none" else ""  # which else stands above
        print(f"saved/{result.run}{score}\n\nWhat to do next:\n{result.next_steps}")
    return 0


def _report_range_test(parameters: TrainParameters) -> str:
    """Do a range test, save its curve, and return what it says."""
    from cityscapes.workspace import output_folder
    from dlv3p.pictures.curves import plot_range_test
    from dlv3p.pictures.figures import save_figure
    from dlv3p.training.range_test import find_rate

    found = find_rate(parameters)
    path = output_folder(parameters.run_name) / f"range_test.{parameters.figures}"
    save_figure(plot_range_test(found, parameters), path)
    return f"{found.describe(parameters)}\n{path}"


if __name__ == "__main__":
    run_command(main)
