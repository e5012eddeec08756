"""Say beside which published figures a result of ours may stand, and in words why it may not stand beside others.

Two rules. A score is ranked among published ones only on the same images, by the same protocol, and after training on
the same images. It stands beside a published training only if it also comes from that training's recipe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cityscapes.errors import MissingInputError
from cityscapes.labels import CLASS_NAMES
from cityscapes.workspace import NOTEBOOKS, run_folder
from dlv3p.data.classes import CLASS_NAMES as VOC_NAMES
from dlv3p.evaluation.benchmarks import is_variant
from dlv3p.evaluation.comparison import read_evaluations
from dlv3p.evaluation.published_figures import SCORES, Figure, network_name
from dlv3p.experiments.table import WHILE_TRAINING, trained_states
from dlv3p.parameters.files import read_config, read_value
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.protocols import PUBLISHED
from dlv3p.parameters.training import WITHOUT_FILE, TrainParameters
from dlv3p.runs.record import read_record

TRAINED_ON = {
    (tuple(CLASS_NAMES), 2975): "Cityscapes train",
    (tuple(VOC_NAMES), 10582): "PASCAL VOC 2012 train_aug",
    (tuple(VOC_NAMES), 1464): "PASCAL VOC 2012 train",
}
"""The training splits of published results, by their classes and number of images."""

FREE = {*TrainParameters.NOT_IDENTITY, "data_root", "seed", "precision", "initial_weights"}
"""Parameters in which a run may differ from its recipe; initial weights are compared by their file."""


@dataclass(frozen=True)
class Result:
    """Scores of ours from 0 to 1, of one checkpoint on some images by one protocol, and how they came about.

    `protocol` is the name of a protocol, or says in words how else was scored; `trained_on` likewise.
    """

    run: str
    checkpoint: str
    data: str
    protocol: str
    trained_on: str
    scores: dict[str, float]
    parameters: dict[str, Any]

    @property
    def network(self) -> str:
        """The network in words."""
        return network_name(*(self.parameters[name] for name in ("architecture", "backbone", "output_stride")))

    @property
    def name(self) -> str:
        """The run, and its checkpoint where that is not the best."""
        return self.run if self.checkpoint == "best" else f"{self.run}, {self.checkpoint}"


def read_results(runs: Sequence[str] = ()) -> list[Result]:
    """Return the results of trained runs: their evaluations, and where a run has none, its score while training."""
    states = trained_states(runs)
    evaluations = read_evaluations([state.run for state in states])
    results = []
    for state in states:
        own = [one for one in evaluations if one.run == state.run]
        trained_on = _trained_on(state.run, state.parameters)
        for one in own:
            told = (state.run, Path(one.checkpoint).stem, *one.column, trained_on)
            results.append(Result(*told, one.scores, state.parameters))
        if not own and state.best_mean_iou is not None:
            data = f"{Path(str(state.parameters['data_root'])).name} {state.parameters['val_split']}"
            told = (state.run, "best", data, WHILE_TRAINING, trained_on)
            results.append(Result(*told, {"mIoU": state.best_mean_iou}, state.parameters))
    return results


def objection(result: Result, figures: Sequence[Figure]) -> str:
    """Return why a result is not ranked among published scores, "" if it is."""
    scores = [one for one in figures if one.is_score and one.metric == "mIoU"]
    evaluate = f"papermill evaluate.ipynb -p run {result.run}"
    if result.protocol == WHILE_TRAINING:
        return f"scored while training, not by a published protocol: {evaluate}"
    if result.data not in (published := {one.data for one in scores}):
        return f"other images: published scores are of {' and '.join(sorted(published))}"
    scores = [one for one in scores if one.data == result.data]
    if result.protocol not in (known := {one.protocol for one in scores}):
        wanted = ", ".join(name for name in PUBLISHED if name in known)
        return f"another protocol: on these images, {wanted} have published scores: {evaluate} -p protocol NAME"
    known = dict.fromkeys(one.training for one in scores if one.protocol == result.protocol)
    if training_images(result, figures) not in known:
        return f"trained on {result.trained_on}; published by this protocol: {'; '.join(known)}"
    return ""


def training_images(result: Result, figures: Sequence[Figure]) -> str:
    """Return what a result was trained on: if it comes from a published recipe, all that this recipe's stages saw."""
    return next((one.training for one in figures if one.is_score and follows(result, one)), result.trained_on)


def stands_beside(result: Result, figure: Figure) -> bool:
    """Return whether a score of ours is the counterpart of a published one: same images, protocol and training."""
    same = (result.data, result.protocol) == (figure.data, figure.protocol)
    return figure.is_score and same and SCORES[figure.metric] in result.scores and follows(result, figure)


def follows(result: Result, figure: Figure) -> bool:
    """Return whether a run comes from the recipe of a published figure, on the same images in its last stage."""
    images, last = result.trained_on.partition(", after ")[0], figure.training.rpartition(", then ")[2]
    known = images in TRAINED_ON.values() and bool(last) and images.endswith(last)
    return known and bool(figure.recipe) and not differences(result, figure)


def differences(result: Result, figure: Figure) -> list[str]:
    """Return the parameters in which a run differs from the training of a published figure that has a recipe."""
    recipe, free = recipe_of(figure).as_dict(), FREE - changes_of(figure.changes).keys()
    names = [name for name in recipe if name not in free and result.parameters.get(name) != recipe[name]]
    same = _file(result.parameters["initial_weights"]) == _file(recipe["initial_weights"])
    return names if same else [*names, "initial_weights"]


def recipe_of(figure: Figure) -> TrainParameters:
    """Return the parameters of the training of a published figure that has a recipe."""
    return read_recipe(figure.recipe, figure.changes)


def network_of(figure: Figure) -> NetworkParameters:
    """Return the switches of the network of a published figure that has a recipe."""
    values = recipe_of(figure).as_dict()
    return NetworkParameters(**{name: values[name] for name in NetworkParameters.__dataclass_fields__})


@lru_cache(maxsize=256)
def read_recipe(name: str, changes: str = "") -> TrainParameters:
    """Return the parameters of a recipe with changes to it; raises MissingInputError without the repository."""
    values = read_config(_recipes() / f"{name}.yaml", option="recipe")
    values |= {changed: read_value(changed, value) for changed, value in changes_of(changes).items()}
    return TrainParameters.from_mapping(values)


def changes_of(changes: str) -> dict[str, str]:
    """Return the names and values in the `changes` of a figure, as in `backbone=resnet18; crop_height=769`."""
    return {name: value for name, _, value in (one.partition("=") for one in changes.split("; ") if one)}


def stage_before(recipe: str) -> str:
    """Return the recipe whose weights another one starts from, "" if it starts from no run of a recipe."""
    source = _file(read_recipe(recipe).initial_weights)
    stages = {("saved", read_recipe(name).run, "model.safetensors"): name for name in _named_recipes()}
    return stages.get(source, "")


@lru_cache(maxsize=1)
def _named_recipes() -> list[str]:
    names = sorted(path.stem for path in _recipes().glob("*.yaml"))
    return [name for name in names if read_recipe(name).run]


def _recipes() -> Path:
    if not NOTEBOOKS.is_dir():
        raise MissingInputError(f"{NOTEBOOKS}: no such folder; a report needs the repository, installed with -e")
    return NOTEBOOKS / "recipes"


def _trained_on(run: str, parameters: dict[str, Any]) -> str:
    """Name the images that a run was trained on, by what its record says of them."""
    try:
        record = read_record(run_folder(run) / "run.json")
        images, names = record["data"]["train"]["images"], tuple(record["class_names"])
    except (OSError, ValueError, LookupError, TypeError):
        return "images that its record does not tell"
    if "imported" in record:
        return "images of whoever published its weights"
    split = f"{Path(str(parameters['data_root'])).name} {parameters['train_split']}, {images} images"
    known = split if is_variant(str(parameters["data_root"])) else TRAINED_ON.get((names, images), split)
    other = [parameters[name] for name in ("initial_weights", "teacher") if parameters[name] not in ("", *WITHOUT_FILE)]
    return f"{known}, after the images of {' and '.join(other)}" if other else known


def _file(weights: str) -> tuple[str, ...]:
    """Return what identifies initial weights wherever they lie: the file's name, below saved/ with its folders."""
    parts = Path(weights).parts
    return parts[parts.index("saved") :] if "saved" in parts else parts[-1:]
