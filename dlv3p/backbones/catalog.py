"""Every backbone by name. A new one is a file in this folder and a line here; this module imports no torch."""

BACKBONES = {
    "resnet18": "dlv3p.backbones.resnet",
    "resnet34": "dlv3p.backbones.resnet",
    "resnet50": "dlv3p.backbones.resnet",
    "resnet101": "dlv3p.backbones.resnet",
    "resnet152": "dlv3p.backbones.resnet",
}
"""Name: the module whose `build(name, options)` makes it."""
