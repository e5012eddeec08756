"""Initial weights of timm's networks: those that timm publishes, and files of timm's whole classifiers.

timm fills a network without a classifier with whatever fits of a file, and says nothing of the rest; so a file is held
against the whole classifier first.
"""

import sys
from collections.abc import Mapping

import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor

from cityscapes.errors import IntegrityError, MachineError
from dlv3p.parameters.catalog import TIMM
from dlv3p.weights.differences import list_differences
from dlv3p.weights.names import without_wrapper
from dlv3p.weights.printing import shown, told


def features_state(name: str, state: Mapping[str, Tensor] | None, source: str) -> dict[str, Tensor]:
    """Return the weights of the backbone called `name`: timm's own, or those of a classifier's `state`.

    Raises MachineError when they cannot be downloaded, and IntegrityError, which lists the differences, for anything
    but the state of this very classifier, of whatever number of classes.
    """
    settings = {}
    if state is not None:
        state = {without_wrapper(key): value for key, value in state.items()}
        _refuse_other(name, state, source)
        settings["pretrained_cfg_overlay"] = {"state_dict": state}
    try:
        body = timm.create_model(name.removeprefix(TIMM), features_only=True, pretrained=True, **settings)
    except (OSError, RuntimeError) as error:
        said = shown(" ".join(str(error).split()), 300)
        raise MachineError(
            f"initial_weights={source!r}: timm gives no weights for {name} ({said}); try again with a network, give "
            "the path of a file, or 'random'"
        ) from error
    return {f"body.{key}": value for key, value in body.state_dict().items()}


def _refuse_other(name: str, state: Mapping[str, Tensor], source: str) -> None:
    short = name.removeprefix(TIMM)
    with torch.device("meta"):
        classifier = timm.create_model(short)
    # The module of a network renames the entries of files from other hands, where it knows such.
    rename = getattr(sys.modules[model_entrypoint(short).__module__], "checkpoint_filter_fn", None)
    try:
        renamed = rename(dict(state), classifier) if rename else state
    except Exception as error:  # it looks into a file that may be anything
        raise IntegrityError(
            f"initial_weights={source!r} is not a {name} file ({told(error)}); give such a file or another backbone"
        ) from error
    heads = classifier.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    expected, found = (
        {key: value for key, value in entries.items() if not key.startswith(heads)}
        for entries in (classifier.state_dict(), renamed)
    )
    if differences := list_differences(expected, found):
        raise IntegrityError(
            f"initial_weights={source!r} is not a {name} file: {differences}; give such a file or another backbone"
        )
