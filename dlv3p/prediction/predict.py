"""Predict many images into a folder: what is finished is not made again, and a damaged image costs no other.

A thousand images take no more memory than ten, and any executor's workers can do the work: see `pipeline.py`.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from cityscapes.errors import ParameterError
from cityscapes.files.images import NEARLY_BLACK, STRETCH
from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.locks import lock_folder
from cityscapes.freed_memory import keep_freed_memory
from dlv3p.prediction.networks import LabelsFile
from dlv3p.prediction.pipeline import Pipeline
from dlv3p.prediction.predictor import ImagePredictor
from dlv3p.prediction.results import Outputs, Predictions, Results, check_output, open_results, say_others
from dlv3p.prediction.sources import Source
from dlv3p.runtime.progress import track


@keep_freed_memory()
def predict_images(
    predictor: ImagePredictor,
    source: Source,
    output: str | Path,
    outputs: Outputs | None = None,
    *,
    batch_size: int = 1,
    progress: str = "auto",
    executor: Executor | None = None,
) -> Predictions:
    """Predict the images of a source into the folder `output`, see `results.py`; a killed call is resumed.

    With `batch_size` above 1, neighbors in the list that have the same size are predicted together. `executor` is any
    `concurrent.futures.Executor` that does the work in other processes or on other machines that see the same folders;
    each worker reads the network once, and the files are the same.

    Raises ParameterError where the folder holds results of other weights, another runtime or other settings,
    MachineError where nothing can be written or the executor has lost a worker, and IntegrityError where a worker
    finds another network; what is wrong with single images is in `problems`.
    """
    output, outputs = Path(output), outputs or Outputs()
    if outputs.confidence and isinstance(predictor.network, LabelsFile):
        raise ParameterError(
            f"confidence=True: {predictor.network.checkpoint} ends in labels; give the run or its weights"
        )
    check_output(output)
    with lock_folder(output):
        remove_leftovers(output, locked=True)
        results = open_results(output, predictor, outputs, batch_size=batch_size)
        results.save_record({"source": source.title, "count": len(source.images)})
        pipeline = Pipeline(predictor, results, batch_size)
        images = pipeline.run_by(executor, source.images) if executor else pipeline.run(source.images)
        jobs = track(images, total=len(source.images), title=f"predict {source.title}", mode=progress, unit="images")
        try:
            ended = {job.image.name: (job.sha256, job.problem) for job in jobs}
        finally:
            images.close()
            results.save_table([image.name for image in source.images])
        hashes, problems = hashlib.sha256(), []
        for image in source.images:
            sha256, problem = ended[image.name]
            hashes.update(f"{image.name} {sha256}\n".encode(errors="surrogateescape"))
            problems += [problem] * bool(problem)
        described = {"source": source.title, "count": len(source.images), "sha256": hashes.hexdigest()}
        results.save_record(described, problems)
    done = tuple(image.name for image in source.images if image.name in results.rows)
    say_others(results, done)
    say_nearly_black(results, done)
    return Predictions(output, done, pipeline.made, tuple(problems))


def say_nearly_black(results: Results, names: Sequence[str]) -> None:
    """Warn of images of 16 bits that a network saw as nearly black, those of an earlier call, too."""
    dark = [name for name in names if NEARLY_BLACK in results.rows.get(name, {}).get("note", "")]
    if dark:
        print(f"warning: {len(dark)} images of 16 bits came out {NEARLY_BLACK}, the first {dark[0]}; {STRETCH}")
