"""Find the last good checkpoint of a run, and refuse what the run cannot go on from."""

from pathlib import Path
from typing import Any

from cityscapes.dataset import Split
from cityscapes.errors import IntegrityError, MissingInputError, NewerFormatError, ParameterError
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import checkpoint_path, refuse_other_parameters
from dlv3p.weights.checkpoint import load_checkpoint


def last_checkpoint(folder: Path, parameters: TrainParameters, training: Split) -> dict[str, Any] | None:
    """Read "last", or "best" where "last" is damaged and put aside; return None for a run without a checkpoint.

    Raises IntegrityError when neither can be read. A checkpoint that is whole, but of another run, raises what says so.
    """
    last, best = (checkpoint_path(folder.name, name) for name in ("last", "best"))
    if not last.is_file() and not best.is_file():
        return None
    try:
        saved = load_checkpoint(last)
    except NewerFormatError:
        raise
    except (IntegrityError, MissingInputError) as error:
        saved = _instead_of_last(error, last, best)
    _refuse_imported(folder, saved)
    refuse_other_parameters(folder.name, saved["parameters"], parameters)
    _refuse_other_classes(folder, list(saved["class_names"]), training)
    return saved


def _instead_of_last(error: Exception, last: Path, best: Path) -> dict[str, Any]:
    """Return "best", and put a damaged "last" aside; nothing moves, and nothing starts anew, when neither is good."""
    try:
        saved = load_checkpoint(best)
    except NewerFormatError:
        raise
    except (IntegrityError, MissingInputError) as other:
        raise IntegrityError(f"{error}; nor is there a good {best.name}: nothing to go on from") from other
    if last.is_file():
        last.replace(last.with_name(last.name + ".bad"))
    print(f"warning: {error}; going on from the best checkpoint, of epoch {saved['epoch']}", flush=True)
    return saved


def _refuse_imported(folder: Path, saved: dict[str, Any]) -> None:
    if "optimizer" not in saved:
        raise ParameterError(
            f"run={folder.name!r} was imported, not trained, and cannot go on; train as another run, with "
            f"initial_weights={str(folder / 'model.safetensors')!r}"
        )


def _refuse_other_classes(folder: Path, then: list[str], training: Split) -> None:
    now = list(training.class_names)
    if then != now:
        differing = sorted(set(then) ^ set(now))[:5] or ["their order"]
        raise IntegrityError(
            f"run={folder.name!r} was trained with {len(then)} classes, and {training.root} has {len(now)}; other are "
            f"{', '.join(differing)}. Bring the old ones back, or train as another run"
        )
