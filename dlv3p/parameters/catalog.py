"""Every backbone by name. A new one is a file in this folder and a line here; this module imports no torch."""

import difflib

from cityscapes.errors import ParameterError

BACKBONES = {
    "resnet18": "dlv3p.models.backbones.resnet",
    "resnet34": "dlv3p.models.backbones.resnet",
    "resnet50": "dlv3p.models.backbones.resnet",
    "resnet101": "dlv3p.models.backbones.resnet",
    "resnet152": "dlv3p.models.backbones.resnet",
    "vovnet39": "dlv3p.models.backbones.vovnet",
    "vovnet57": "dlv3p.models.backbones.vovnet",
    "densenet121": "dlv3p.models.backbones.densenet",
    "densenet161": "dlv3p.models.backbones.densenet",
    "densenet169": "dlv3p.models.backbones.densenet",
    "densenet201": "dlv3p.models.backbones.densenet",
    "mobilenet_v2": "dlv3p.models.backbones.mobilenet",
    "mobilenet_v3_large": "dlv3p.models.backbones.mobilenet",
}
"""Name: the module whose `build(name, options)` makes it."""

TIMM = "timm:"
"""What a name begins with that timm knows: `timm:resnet50d` is its resnet50d."""


def find(name: str) -> str:
    """Return the module whose `build(name, options)` makes the backbone called `name`.

    Raises ParameterError, with the nearest names, for one that is not in `BACKBONES` and does not begin with `TIMM`;
    whether timm knows the rest is for timm to say, when the backbone is built.
    """
    if name.startswith(TIMM):
        return "dlv3p.models.backbones.timm_backbone"
    if name in BACKBONES:
        return BACKBONES[name]
    near = difflib.get_close_matches(name, BACKBONES, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ParameterError(f"backbone={name!r}: allowed are {', '.join(BACKBONES)}, {TIMM}<name>{hint}")
